package diagnosis

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"

	"tapsec/ah"
	"tapsec/sa"
	"tapsec/wire"
)

type packet = wire.Packet

// addresses are the first ones seen around AH, and those of SAs.
type addresses struct{ list []netip.Addr }

// maxAddresses bounds them, since each pair is tried for a frame.
const maxAddresses = 12

func (a *addresses) add(all ...netip.Addr) {
	for _, n := range all {
		if n.IsValid() && len(a.list) < maxAddresses && !slices.Contains(a.list, n) {
			a.list = append(a.list, n)
		}
	}
}

// edits are near misses of the frame itself.
func edits(s *sa.SA, x *sample, seen []netip.Addr) misses {
	all := []misses{paddings(s, x)}
	if s.Protocol == sa.AH {
		all = append(all, checksums(s), translations(s, x, seen))
	}
	return chain(all...)
}

// maxPadding is the most that Ethernet pads a packet with.
const maxPadding = 46

// paddings takes zeros at the end of a frame out of its IP length.
func paddings(s *sa.SA, x *sample) misses {
	return lazily(func() (all []miss) {
		for n := 1; n <= maxPadding && n < x.packet.Reach-x.packet.Header && x.frame[x.packet.Reach-n] == 0; n++ {
			all = append(all, miss{cause: EthernetPadding, sa: *s, needs: verifies, edit: shorter(n),
				text: fmt.Sprintf("without the last %d bytes, zeros like those that Ethernet pads with", n)})
		}
		return all
	})
}

// shorter cuts n bytes off packet and frame.
func shorter(n int) func([]byte, packet) ([]byte, bool) {
	return func(frame []byte, p packet) ([]byte, bool) {
		at := p.Start + 2 // of the total length
		if p.Version == 6 {
			at = p.Start + 4
		}
		be := binary.BigEndian
		if p.Short || int(be.Uint16(frame[at:])) < n || len(frame)-n < p.Header+wire.UDPLen {
			return nil, false
		}
		be.PutUint16(frame[at:], be.Uint16(frame[at:])-uint16(n))
		if p.Proto == wire.ProtoUDP {
			be.PutUint16(frame[p.Header+4:], be.Uint16(frame[p.Header+4:])-uint16(n))
		}
		return frame[:len(frame)-n], true
	}
}

// checksums puts other TCP or UDP checksums under an AH.
func checksums(s *sa.SA) misses {
	return slices.Values([]miss{
		{cause: AHChecksum, sa: *s, needs: verifies, edit: sumUnder(wire.UpperSum),
			text: "with the right TCP or UDP checksum in place of the frame's"},
		{cause: AHChecksum, sa: *s, needs: verifies, edit: sumUnder(wire.PartialSum),
			text: "with the unfinished TCP or UDP checksum that a NIC completes"},
	})
}

func sumUnder(sum func([]byte, *packet)) func([]byte, packet) ([]byte, bool) {
	return func(frame []byte, p packet) ([]byte, bool) {
		if p.Header+ah.FixedLen > p.Reach {
			return nil, false
		}
		head := frame[p.Header:]
		under, next := p.Header+ah.Len(head), head[0]
		if under > p.Reach {
			return nil, false
		}
		if next == wire.ProtoIPv4 || next == wire.ProtoIPv6 {
			inner, ok := wire.Addresses(frame, under)
			if !ok {
				return nil, false
			}
			sum(frame, &inner)
			return frame, true
		}
		p.Header, p.Proto = under, next
		sum(frame, &p)
		return frame, true
	}
}

// translations replaces the addresses that AH covers by others, first one, then both.
func translations(s *sa.SA, x *sample, seen []netip.Addr) misses {
	return func(yield func(miss) bool) {
		src, dst := x.packet.Src, x.packet.Dst
		for _, a := range seen {
			for _, pair := range [][2]netip.Addr{{a, dst}, {src, a}} {
				if !yield(translated(s, x, pair[0], pair[1])) {
					return
				}
			}
		}
		for _, from := range seen {
			for _, to := range seen {
				if from != to && from != src && to != dst && !yield(translated(s, x, from, to)) {
					return
				}
			}
		}
	}
}

func translated(s *sa.SA, x *sample, from, to netip.Addr) miss {
	text := fmt.Sprintf("from %s instead of %s", from, x.packet.Src)
	if from == x.packet.Src {
		text = fmt.Sprintf("to %s instead of %s", to, x.packet.Dst)
	} else if to != x.packet.Dst {
		text += fmt.Sprintf(" and to %s instead of %s", to, x.packet.Dst)
	}
	return miss{cause: NATUnderAH, sa: *s, needs: verifies, text: text, edit: func(frame []byte, p packet) ([]byte, bool) {
		if from.Is4() != (p.Version == 4) || to.Is4() != from.Is4() || from == p.Src && to == p.Dst {
			return nil, false
		}
		at := p.Start + 12
		if p.Version == 6 {
			at = p.Start + 8
		}
		n := copy(frame[at:], from.AsSlice())
		copy(frame[at+n:], to.AsSlice())
		return frame, true
	}}
}

// notEncrypted takes the payload of ESP for plaintext, with and without room for the ICV
// after it.
func notEncrypted(s *sa.SA) misses {
	null, err := sa.ParseSuite(sa.ESP, "null")
	return lazily(func() (all []miss) {
		if s.Protocol != sa.ESP || s.Suite.Cipher == sa.Null || s.Suite.Cipher == sa.NullGMAC || err != nil {
			return
		}
		for _, icv := range []int{s.Suite.ICVLen, 0} {
			m := miss{cause: NotEncrypted, sa: *s, needs: sensible, text: "taken as plaintext", edit: unsealed(s.Suite.IVLen, icv)}
			m.sa.Suite, m.sa.EncryptionKey, m.sa.IntegrityKey, m.sa.ESN, m.sa.PadCheck = null, sa.Key{}, sa.Key{}, false, true
			all = append(all, m)
		}
		return all
	})
}

// unsealed takes IV and ICV out of an ESP packet.
func unsealed(iv, icv int) func([]byte, packet) ([]byte, bool) {
	return func(frame []byte, p packet) ([]byte, bool) {
		at := p.Header + 8
		if p.Proto == wire.ProtoUDP {
			at += wire.UDPLen
		}
		if at+iv+icv > p.Reach || p.Short {
			return nil, false
		}
		frame = append(frame[:at], frame[at+iv:p.Reach-icv]...)
		return shorter(iv+icv)(append(frame, make([]byte, iv+icv)...), p)
	}
}
