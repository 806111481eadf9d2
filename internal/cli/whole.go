package cli

import (
	"sync/atomic"
	"time"

	"tapsec/internal/fragment"
	"tapsec/wire"
)

// whole puts the stack's own fragments together before they are sealed, for
// transport mode takes none (RFC 4303 section 3.3.4): what is then too long for
// the wire is cut again behind the seal. Where nothing is sealed it does nothing.
type whole struct {
	fragments *fragment.Buffer
	idle      atomic.Bool
	out       [][]byte
}

// Batch returns what is no fragment as it is, and datagrams once they are whole.
func (w *whole) Batch(frames [][]byte) [][]byte {
	if w.idle.Load() {
		return frames
	}
	w.fragments.Release()
	w.out = w.out[:0]
	for _, f := range frames {
		if p, ok := fragmentOf(f); ok {
			f, _ = w.fragments.Add(f, p, 0, time.Now().UnixNano())
		}
		if f != nil {
			w.out = append(w.out, f)
		}
	}
	return w.out
}

// fragmentOf tells whether a frame carries a fragment.
func fragmentOf(frame []byte) (p wire.Packet, ok bool) {
	etherType, l3, ok := wire.Ethernet(frame)
	if !ok || etherType != wire.EtherIPv4 && etherType != wire.EtherIPv6 {
		return p, false
	}
	p, ok = wire.Addresses(frame, l3)
	return p, ok && p.Fragment
}
