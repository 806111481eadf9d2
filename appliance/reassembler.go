//go:build linux

package appliance

import (
	"sync/atomic"
	"time"

	"tapsec/internal/fragment"
	"tapsec/wire"
)

// reassembler puts the stack's own fragments together before they are sealed, since
// transport mode allows none (RFC 4303 section 3.3.4). What is then too long for the
// wire is fragmented after sealing. If nothing is sealed it does nothing.
type reassembler struct {
	fragments *fragment.Buffer
	idle      atomic.Bool
	out       [][]byte
}

// Batch passes on what is not a fragment, and each datagram once it is whole.
func (r *reassembler) Batch(frames [][]byte) [][]byte {
	if r.idle.Load() {
		return frames
	}
	r.fragments.Release()
	r.out = r.out[:0]
	for _, f := range frames {
		if p, ok := fragmentOf(f); ok {
			f, _ = r.fragments.Add(f, p, 0, time.Now().UnixNano())
		}
		if f != nil {
			r.out = append(r.out, f)
		}
	}
	return r.out
}

// fragmentOf reports whether a frame carries a fragment.
func fragmentOf(frame []byte) (p wire.Packet, ok bool) {
	etherType, l3, ok := wire.Ethernet(frame)
	if !ok || wire.IPVersion(etherType) == 0 {
		return p, false
	}
	p, ok = wire.Addresses(frame, l3)
	return p, ok && p.Fragment
}
