package conformance

import (
	"encoding/binary"
	"slices"
	"strings"

	"tapsec/status"
	"tapsec/wire"
)

// damaged makes failing cases of a vector whose portions are all good: one bit of the
// outermost ICV flipped (rows 7 to 10, 14, 19), and ESP's packet a byte shorter, with lengths
// to match (row 23 b). The effect on word, records and bytes is the same for every packet, so
// it need not be written down.
func damaged(good *Case) []Case {
	if good.Reason != status.Verified || len(good.Records) == 0 {
		return nil
	}
	portion := status.TransportPortion
	if strings.HasPrefix(good.Records[0], status.TunnelPortion.String()) {
		portion = status.TunnelPortion
	}
	at := locate(good.Frame)
	if at.Proto == wire.ProtoAH {
		return []Case{good.failing("a bit of the ICV flipped", flipped(good.Frame, at.ipsec+ahICV), portion, status.AHICV)}
	}
	return []Case{
		good.failing("a bit of the ICV flipped", flipped(good.Frame, at.end-1), portion, status.ESPICV),
		good.failing("a byte short", at.shortened(good.Frame), portion, status.ESPLength),
	}
}

// failing is the case with another frame, whose outermost portion fails. ESP after the AH of
// the same portion is then not tried (row 19).
func (c Case) failing(how string, frame []byte, p status.Portion, r status.Reason) Case {
	lines := []string{ended(c.Records[0], "failed")}
	if r == status.AHICV && len(c.Records) > 1 && strings.HasPrefix(c.Records[1], p.String()) {
		lines = append(lines, ended(c.Records[1], "not-processed"))
	}
	return Case{
		Source: c.Source, Title: c.Title + ", " + how, Frame: frame,
		Word: word(one, r.Code(p)), Reason: r, Records: lines, InPlace: frame,
	}
}

// ended is a record's line with another state.
func ended(record, state string) string {
	return strings.Join(append(strings.Fields(record)[:4], state), " ")
}

const ahICV = 12 // offset in the AH (RFC 4302 section 2)

// place says where the outermost IPsec header of a frame lies.
type place struct {
	wire.Packet
	udp   int // the UDP header around ESP; 0: none
	ipsec int
	end   int // after ESP's ICV, or the AH's packet
}

func locate(frame []byte) place {
	etherType, l3, _ := wire.Ethernet(frame)
	p, err := wire.ParseIP(frame, l3, len(frame), wire.IPVersion(etherType))
	if err != nil {
		panic("conformance: a good vector: " + err.Error())
	}
	at := place{Packet: p, ipsec: p.Header, end: p.End}
	if p.Proto == wire.ProtoUDP {
		_, _, length, _ := wire.UDP(frame[p.Header:])
		at.udp, at.ipsec, at.end = p.Header, p.Header+wire.UDPLen, p.Header+length
	}
	return at
}

// shortened removes the last byte of the IP packet and adapts its lengths. No NIC checks the
// header's checksum.
func (at place) shortened(frame []byte) []byte {
	out := slices.Delete(slices.Clone(frame), at.end-1, at.end)
	less := func(offset int) {
		binary.BigEndian.PutUint16(out[offset:], binary.BigEndian.Uint16(out[offset:])-1)
	}
	if less(at.Start + map[uint8]int{4: 2, 6: 4}[at.Version]); at.udp > 0 {
		less(at.udp + 4)
	}
	return out
}

func flipped(frame []byte, at int) []byte {
	out := slices.Clone(frame)
	out[at] ^= 1
	return out
}
