package diagnosis

import (
	"net/netip"

	"tapsec/internal/account"
	"tapsec/pipeline"
	"tapsec/sa"
	"tapsec/status"
	"tapsec/wire"
)

// evidence says how much one frame supports a near miss.
type evidence int

const (
	none     evidence = iota
	verifies          // the ICV is good, the plaintext is not
	opens             // the ICV is good, and so are pad length and pad
	sensible          // what is more, the plaintext is a packet or segment with right checksums
)

// trial is a NIC that judges frames by one SA at a time.
type trial struct {
	sad  *pipeline.SAD
	pipe *pipeline.Pipeline
	buf  []byte
}

func newTrial() *trial {
	full, err := sa.ProfileByName("full")
	if err != nil {
		panic("diagnosis: " + err.Error())
	}
	sad := pipeline.NewSAD(full, 1)
	return &trial{sad: sad, pipe: pipeline.New(sad, pipeline.Options{})}
}

// try judges a sample by the SA of a near miss, which gets the sample's SPI, any addresses,
// and the high half of its number.
func (t *trial) try(m *miss, x *sample) evidence {
	s := m.sa
	s.Name, s.SPI, s.Encap, s.Src, s.Dst = "trial", uint32(x.header.SPI), x.header.Encap, netip.Addr{}, netip.Addr{}
	s.Bundle, s.Seq, s.OSeq, s.Bitmap, s.Direction, s.SeqHigh = "", 0, 0, nil, 0, 0
	s.Protocol = s.Suite.Protocol
	if s.ESN {
		s.SeqHigh = m.high(x.high())
	}
	t.buf = append(t.buf[:0], x.frame...)
	if m.edit != nil {
		frame, ok := m.edit(t.buf, x.packet)
		if !ok {
			return none
		}
		t.buf = frame
	}
	handle, err := t.sad.Add(&s)
	if err != nil {
		return none // the keys do not fit the algorithm
	}
	body, trailer, err := status.Split(t.pipe.Process(t.buf))
	if err := t.sad.Delete(handle); err != nil {
		panic("diagnosis: " + err.Error())
	}
	if err != nil || trailer.N != 1 {
		return none
	}
	return weigh(body, &trailer.Records[0])
}

// weigh says what the record of an opened header is evidence of.
func weigh(frame []byte, rec *status.Record) evidence {
	switch {
	case rec.State == status.FailedAfter:
		return verifies
	case rec.State != status.ICVValid:
		return none
	case makesSense(frame, rec):
		return sensible
	}
	return opens
}

// makesSense reports whether a plaintext is an IP packet of the length that it says, in IPv4
// with a right header checksum, or a segment with a right checksum.
func makesSense(frame []byte, rec *status.Record) bool {
	p, ok := carried(frame, rec)
	if !ok {
		return false
	}
	if rec.NextHeader == wire.ProtoIPv4 {
		return !p.Short && wire.HeaderSum(frame, &p)
	}
	if rec.NextHeader == wire.ProtoIPv6 {
		return !p.Short
	}
	sum := wire.CheckUpperSum(frame, &p)
	return sum == wire.SumRight || sum == wire.SumPartial
}

// carried is the packet inside an opened portion, or, if the next header is no IP, the outer
// packet with what the portion protects as its payload.
func carried(frame []byte, rec *status.Record) (wire.Packet, bool) {
	if rec.NextHeader == wire.ProtoIPv4 || rec.NextHeader == wire.ProtoIPv6 {
		p, ok := account.Inside(frame, rec)
		return p, ok && p.Version == map[uint8]uint8{wire.ProtoIPv4: 4, wire.ProtoIPv6: 6}[rec.NextHeader]
	}
	p, ok := wire.Addresses(frame, int(rec.IP))
	end := int(rec.Payload) + int(rec.PayloadLen)
	if !ok || end > len(frame) {
		return p, false
	}
	p.Header, p.Proto, p.End, p.Reach, p.Short = int(rec.Payload), rec.NextHeader, end, end, false
	return p, true
}
