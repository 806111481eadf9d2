package soak

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"time"

	"tapsec/internal/lab/forge"
	"tapsec/status"
	"tapsec/wire"
)

// store keeps the latest frames, and a sample of all earlier ones.
type store struct {
	recent [256][]byte
	old    [256][]byte
	n      int
}

func (s *store) keep(frame []byte, random *rand.Rand) {
	s.recent[s.n%len(s.recent)] = bytes.Clone(frame)
	s.n++
	if s.n <= len(s.old) {
		s.old[s.n-1] = bytes.Clone(frame)
	} else if i := random.IntN(s.n / 4); i < len(s.old) { // the odds of a fair sample, times four
		s.old[i] = bytes.Clone(frame)
	}
}

// pick returns a copy of one frame, or nothing.
func (s *store) pick(random *rand.Rand) []byte {
	from := &s.recent
	if random.IntN(3) == 0 {
		from = &s.old
	}
	return bytes.Clone(from[random.IntN(min(len(from), max(s.n, 1)))])
}

// attacker sees every frame, and puts frames of its own in between.
type attacker struct {
	c      *campaign
	random *rand.Rand // used under the cable's lock alone
	sent   uint64
}

const (
	attackEvery = 20 * time.Millisecond
	attackBurst = 8 // frames at most
)

// run attacks until the campaign ends.
func (a *attacker) run() {
	for tick := time.NewTicker(attackEvery); ; {
		select {
		case <-a.c.done:
			tick.Stop()
			return
		case <-tick.C:
		}
		for range 1 + time.Now().UnixNano()%attackBurst {
			if from, frame := a.make(); frame != nil {
				a.c.cable.put(from, frame)
				a.sent++
			}
		}
	}
}

// make returns a frame that must not get through, and the host it pretends to come from.
func (a *attacker) make() (from int, frame []byte) {
	w, r := a.c.cable, a.random
	w.mu.Lock()
	defer w.mu.Unlock()
	from = r.IntN(2)
	frame = w.kept[from].pick(r)
	if len(frame) < 54 {
		return from, nil
	}
	const ipAt = 14
	switch r.IntN(9) {
	case 0, 1: // a replay
	case 2, 3: // flipped bits
		for range 1 + r.IntN(3) {
			frame[ipAt+r.IntN(len(frame)-ipAt)] ^= 1 << r.IntN(8)
		}
	case 4: // a flipped bit after the headers
		frame[len(frame)-1-r.IntN(16)] ^= 1 << r.IntN(8)
	case 5:
		frame = frame[:ipAt+r.IntN(len(frame)-ipAt)]
	case 6: // after the packet
		tail := make([]byte, r.IntN(64))
		frame = append(frame, tail...)
	case 7: // an SPI of nobody, or of another
		if p, ok := wire.Addresses(frame, ipAt); ok && p.Reach-p.Header > 4 {
			binary.BigEndian.PutUint32(frame[p.Header:], 0x1000+r.Uint32N(0x200))
		}
	case 8:
		frame = a.clear(from, r)
	}
	// One extra fragment costs a datagram (RFC 5722). In quiet none may be lost, and
	// IPv4 has so few identifications (RFC 4963) that an earlier one may come again.
	if p, ok := wire.Addresses(frame, ipAt); ok && p.Fragment && (p.Version == 4 || !a.c.disturbed.Load()) {
		return from, nil
	}
	if r.IntN(4) == 0 { // a verdict of its own
		frame = status.Annotate(frame, &status.Trailer{Word: status.CryptoDone, Reason: status.Verified, WireLen: uint32(max(len(frame), status.MinFrame))})
	}
	return from, frame
}

// clear makes a datagram in clear between the hosts' addresses.
func (a *attacker) clear(from int, r *rand.Rand) []byte {
	n := r.IntN(len(paths))
	src, dst := paths[n].addr(n, from), paths[n].addr(n, 1-from)
	payload := datagram(line{n, from}, 1<<40+r.Uint64N(1<<20), 64)
	packet := forge.UDP(nil, netip.AddrPortFrom(src, soakPort), netip.AddrPortFrom(dst, soakPort), payload)
	return ethernet(from, packet)
}
