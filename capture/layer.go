//go:build !js

package capture

import (
	"fmt"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"tapsec/status"
)

// LayerTypeTrailer is the status trailer for gopacket. gopacket reads from the front and cuts a
// packet at its IP length, and never gets to what follows. So the trailer is the first layer,
// with the frame before it as its payload:
//
//	gopacket.NewPacketSource(source, capture.LayerTypeTrailer)
var LayerTypeTrailer = gopacket.RegisterLayerType(2540, gopacket.LayerTypeMetadata{
	Name: "StatusTrailer", Decoder: gopacket.DecodeFunc(decodeTrailer),
})

// TrailerLayer is the outermost layer of a delivered frame. Contents are the bytes of the
// trailer, Payload the Ethernet frame before it. The zero value is ready for a
// gopacket.DecodingLayerParser.
type TrailerLayer struct {
	layers.BaseLayer
	status.Trailer
}

var (
	_ gopacket.DecodingLayer = (*TrailerLayer)(nil)
	_ gopacket.Layer         = (*TrailerLayer)(nil)
)

// LayerType is LayerTypeTrailer.
func (*TrailerLayer) LayerType() gopacket.LayerType { return LayerTypeTrailer }

// CanDecode is LayerTypeTrailer.
func (*TrailerLayer) CanDecode() gopacket.LayerClass { return LayerTypeTrailer }

// NextLayerType is Ethernet.
func (*TrailerLayer) NextLayerType() gopacket.LayerType { return layers.LayerTypeEthernet }

// DecodeFromBytes takes the trailer off a delivered frame. Its errors are those
// of status.Split.
func (l *TrailerLayer) DecodeFromBytes(frame []byte, _ gopacket.DecodeFeedback) error {
	body, t, err := status.Split(frame)
	if err != nil {
		return err
	}
	l.BaseLayer = layers.BaseLayer{Contents: frame[len(body):], Payload: body}
	l.Trailer = t
	return nil
}

// String gives the frame's verdict in one line.
func (l *TrailerLayer) String() string {
	return fmt.Sprintf("%s %s: %s", l.Word, l.Word.Code(), l.Reason.Sentence())
}

func decodeTrailer(frame []byte, p gopacket.PacketBuilder) error {
	l := &TrailerLayer{}
	if err := l.DecodeFromBytes(frame, p); err != nil {
		return err
	}
	p.AddLayer(l)
	return p.NextDecoder(l.NextLayerType())
}

// Decode decodes a delivered frame: its trailer, then Ethernet and what that
// carries. The packet refers to frame, which must not change. A frame without
// a valid trailer has nothing but an error layer.
func Decode(frame []byte) gopacket.Packet {
	return gopacket.NewPacket(frame, LayerTypeTrailer, gopacket.NoCopy)
}
