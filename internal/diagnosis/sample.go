package diagnosis

import (
	"encoding/binary"
	"slices"

	"tapsec/internal/account"
	"tapsec/sa"
	"tapsec/status"
	"tapsec/wire"
)

// sample is one frame that failed, or has no SA: an Ethernet frame whose packet carries the
// IPsec header in question directly.
type sample struct {
	frame     []byte
	packet    wire.Packet
	header    account.Header
	reason    status.Reason
	number    uint64 // with the high half that the SA gave it
	explained bool
}

// high is the high half of the number.
func (x *sample) high() uint32 { return uint32(x.number >> 32) }

// samples are an SA's first and last frames.
type samples struct {
	all  []sample
	next int // index of the oldest of the last ones
}

// Frames that are kept of an SA.
const (
	firstKept = 4
	lastKept  = 4
)

// slot is where the next frame goes; nil if there is no room for its bytes.
func (s *samples) slot(n int, room *int) *sample {
	if len(s.all) < firstKept+lastKept {
		if *room < n {
			return nil
		}
		*room -= n
		s.all = append(s.all, sample{})
		return &s.all[len(s.all)-1]
	}
	x := &s.all[firstKept+s.next]
	if more := n - cap(x.frame); more > *room {
		return nil
	} else if more > 0 {
		*room -= more
	}
	s.next = (s.next + 1) % lastKept
	return x
}

// ordered gives the samples as they came.
func (s *samples) ordered() []*sample {
	var all []*sample
	for i := range s.all {
		if i >= firstKept && len(s.all) == firstKept+lastKept {
			i = firstKept + (i-firstKept+s.next)%lastKept
		}
		all = append(all, &s.all[i])
	}
	return all
}

// keep copies the packet at which the NIC stopped, the frame's own or one inside a tunnel. If
// rec is of an ESP after an AH, the AH is left out: it is good, and ESP does not cover it.
func (s *samples) keep(frame []byte, t *status.Trailer, rec *status.Record, room *int) {
	inside := t.Form == status.InPlace && t.N > 0 && t.Records[0].Portion == status.TunnelPortion &&
		t.Records[0].State == status.ICVValid && (rec == nil || rec.Portion != status.TunnelPortion)
	p, ok := account.OwnPacket(frame)
	if inside {
		p, ok = account.Inside(frame, lastTunnel(t))
	}
	if !ok {
		return
	}
	x := s.slot(14+len(frame)-p.Start, room)
	if x == nil {
		return
	}
	end := len(frame)
	if inside {
		end = p.Reach
	}
	x.frame = binary.BigEndian.AppendUint16(append(x.frame[:0], make([]byte, 12)...), wire.EtherTypeOf(p.Version))
	x.frame = append(x.frame, frame[p.Start:end]...)
	x.packet, _ = account.OwnPacket(x.frame)
	if rec != nil && rec.Protocol == uint8(sa.ESP) && x.packet.Proto == wire.ProtoAH {
		at := x.packet.Header + int(rec.IPsec) - p.Header
		x.frame = wire.StripTransport(x.frame, &x.packet, at, x.packet.Reach-at, wire.ProtoESP)
	}
	header, seq, _, _ := account.HeaderOf(x.frame, &x.packet)
	x.header, x.reason, x.number, x.explained = header, t.Reason, uint64(seq), false
	if rec != nil {
		x.number = rec.Number
	}
}

// lastTunnel is the record of the innermost header of a tunnel.
func lastTunnel(t *status.Trailer) *status.Record {
	i := slices.IndexFunc(t.Records[:t.N], func(r status.Record) bool { return r.Portion != status.TunnelPortion })
	if i < 0 {
		i = int(t.N)
	}
	return &t.Records[i-1]
}
