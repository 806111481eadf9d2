package explain

import (
	"tapsec/pipeline"
	"tapsec/sa"
	"tapsec/status"
	"tapsec/wire"
)

// Span is the range of the bytes that decided, and what they are.
type Span struct {
	From   int    `json:"from"`
	To     int    `json:"to"`
	What   string `json:"what"`
	Opened bool   `json:"opened"` // they are inside the tunnel; offsets are in the opened frame
}

// last is the frame as the last stage left it.
func (f *Frame) last() pipeline.Step { return f.Steps[len(f.Steps)-1] }

// inside reports whether the frame's reason is about what its tunnel carried.
func (f *Frame) inside() bool {
	outer := f.last().Outer
	return outer.Verified && outer.Portion == status.TunnelPortion && (f.Trailer.Reason != status.Verified || f.Trailer.Word.Next())
}

// subject is the portion that the frame's reason is about.
func (f *Frame) subject() pipeline.View {
	if f.inside() {
		return f.last().Inner
	}
	return f.last().Outer
}

// Span returns where to look. The bytes exist; only a frame without any bytes has
// an empty Span.
func (f *Frame) Span() Span {
	s := f.span()
	s.Opened = f.inside()
	end := len(f.Bytes)
	s.From, s.To = max(0, min(s.From, end)), max(0, min(s.To, end))
	return s
}

const etherHeader = 14

func (f *Frame) span() Span {
	v := f.subject()
	k := &v.Packet
	if k.Version == 0 {
		return f.notIP()
	}
	switch f.Trailer.Reason {
	case status.IPLength, status.InnerLength, status.Jumbogram, status.TooLong:
		at := k.Start + 2
		if k.Version == 6 {
			at = k.Start + 4
		}
		return Span{From: at, To: at + 2, What: "the length that the IP header gives"}
	case status.Fragment:
		if k.Version == 4 {
			return Span{From: k.Start + 6, To: k.Start + 8, What: "fragment flags and offset"}
		}
		return Span{From: k.Start + 40, To: k.Header, What: "extension headers, one of them a fragment header"}
	case status.IPv4Options, status.OptionSyntax, status.IPv6Extensions, status.RoutingHeader:
		from := k.Start + 20
		if k.Version == 6 {
			from = k.Start + 40
		}
		return Span{From: from, To: k.Header, What: "options or extension headers"}
	case status.UDPLength:
		return Span{From: k.Header + 4, To: k.Header + 6, What: "the length that the UDP header gives"}
	case status.NoIPsec, status.NoFamily, status.InnerNotIP:
		return Span{From: k.ProtoAt, To: k.ProtoAt + 1, What: "the protocol: neither AH nor ESP"}
	case status.IKE, status.KeepAlive, status.UDPTooShort:
		return Span{From: k.Header + wire.UDPLen, To: min(v.End, k.Header+wire.UDPLen+8), What: "what UDP carries"}
	}
	return f.spanOfHeader(&v)
}

// notIP is the span of a frame, or of a tunnel's payload, that is no IP packet.
func (f *Frame) notIP() Span {
	outer := f.last().Outer
	if f.inside() {
		return Span{From: outer.Payload, To: outer.Payload + min(outer.Length, 40), What: "what the tunnel carries"}
	}
	if f.Trailer.Reason == status.BadIPHeader {
		_, l3, _ := wire.Ethernet(f.Bytes)
		return Span{From: l3, To: l3 + 40, What: "the IP header"}
	}
	if _, l3, ok := wire.Ethernet(f.Bytes); ok {
		return Span{From: l3 - 2, To: l3, What: "the EtherType"}
	}
	return Span{To: etherHeader, What: "the Ethernet header"}
}

// spanOfHeader is the span of a reason that is about an AH or ESP header.
func (f *Frame) spanOfHeader(v *pipeline.View) Span {
	at, protocol := v.Packet.Header, sa.Protocol(v.Packet.Proto)
	if v.Encap {
		at, protocol = at+wire.UDPLen, sa.ESP
	}
	for i := range v.Headers {
		h := &v.Headers[i]
		if at, protocol = h.At, h.Protocol; f.decidedBy(h) {
			break
		}
	}
	switch f.Trailer.Reason {
	case status.ESPICV, status.AHICV, status.Verified:
		for _, h := range v.Headers {
			if h.At == at && h.ICV > 0 {
				return Span{From: h.ICV, To: h.ICV + h.SA.Suite.ICVLen, What: "the ICV"}
			}
		}
	case status.AHLength:
		return Span{From: at + 1, To: at + 2, What: "the length of AH, in words of 32 bits less 2"}
	case status.ESPLength:
		return Span{From: at, To: v.End, What: "the ESP packet"}
	case status.PadLength, status.PadBytes:
		if n := len(v.Headers); n > 0 {
			end, what := v.End-v.Headers[n-1].SA.Suite.ICVLen, "the pad length; the pad is in front of it"
			if su := &v.Headers[n-1].SA.Suite; su.KeyLen > 0 && su.Cipher != sa.NullGMAC {
				what = "the pad length, encrypted; the pad is in front of it"
			}
			return Span{From: end - 2, To: end - 1, What: what}
		}
	case status.ProtocolMismatch:
		return Span{From: v.Packet.ProtoAt, To: v.Packet.ProtoAt + 1, What: "the protocol"}
	}
	if protocol == sa.AH {
		at += 4
	}
	return Span{From: at, To: at + 4, What: "the SPI"}
}

// decidedBy reports whether the frame's verdict comes from one of its headers.
func (f *Frame) decidedBy(h *pipeline.Header) bool {
	for _, rec := range f.Trailer.Records[:f.Trailer.N] {
		if int(rec.IPsec) == h.At {
			return rec.Reason == f.Trailer.Reason
		}
	}
	return false
}
