package ah

import (
	"encoding/binary"
	"errors"
	"hash"

	"tapsec/internal/mac"
	"tapsec/sa"
	"tapsec/wire"
)

// Outbound makes the AH of one SA. It is unsafe for concurrent use.
type Outbound struct {
	mac     hash.Hash
	s       sa.SA
	scratch Scratch
}

// NewOutbound keys the SA's algorithm.
func NewOutbound(s *sa.SA) (*Outbound, error) {
	m, err := mac.New(s.Suite, s.IntegrityKey)
	if err != nil {
		return nil, err
	}
	return &Outbound{mac: m, s: *s}, nil
}

// Len is the length of the whole AH in bytes, a multiple of 8 in both IP versions, as
// Linux makes it.
func (out *Outbound) Len() int {
	return (FixedLen + out.s.Suite.IVLen + out.s.Suite.ICVLen + 7) &^ 7
}

// Append appends an AH without its ICV, which Sign stores once the packet around it is
// complete.
func (out *Outbound) Append(dst []byte, next uint8, number uint64) []byte {
	dst = append(dst, next, byte(out.Len()/4-2), 0, 0)
	dst = binary.BigEndian.AppendUint32(dst, out.s.SPI)
	dst = binary.BigEndian.AppendUint32(dst, uint32(number))
	field := len(dst)
	dst = append(dst, zeros[:out.Len()-FixedLen]...)
	if out.s.Suite.IVLen > 0 {
		binary.BigEndian.PutUint64(dst[field:], number)
	}
	return dst
}

// ErrOptions says that the AH cannot be made of this packet.
var ErrOptions = errors.New("ah: the options in front of the AH do not parse")

// Sign computes the ICV of the AH at p.Header of the complete packet p in frame
// and stores it (RFC 4302 section 3.3.3). The error is ErrOptions.
func (out *Outbound) Sign(frame []byte, p *wire.Packet, number uint64) error {
	tag, ok := digest(out.mac, frame, p, &out.s.Suite, out.s.ESN, number, &out.scratch)
	if !ok {
		return ErrOptions
	}
	icv := frame[p.Header+FixedLen+out.s.Suite.IVLen:][:out.s.Suite.ICVLen]
	copy(icv, tag)
	return nil
}
