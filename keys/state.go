package keys

import (
	"fmt"
	"net/netip"

	"tapsec/sa"
)

// State is a state of Linux's kernel, as its netlink has it (linux/xfrm.h) and
// `ip xfrm state` prints it.
type State struct {
	Src, Dst  netip.Addr // all zeros is any
	Protocol  uint8      // of IP
	Mode      uint8      // XFRM_MODE_TRANSPORT, XFRM_MODE_TUNNEL ...
	SPI       uint32
	ReqID     uint32
	Direction sa.Direction // Linux 6.10 knows it
	Selector  sa.Selector

	Cipher    *Algorithm // XFRMA_ALG_CRYPT or XFRMA_ALG_AEAD; nil: none
	Integrity *Algorithm // XFRMA_ALG_AUTH_TRUNC or XFRMA_ALG_AUTH; nil: none
	Encap     *Encap     // nil: not in UDP

	ESN       bool
	Window    uint32 // packets
	Seq, OSeq uint64
	Bitmap    []uint32 // of the window, lowest word first
	Ring      bool     // number n has bit (n-1) modulo the window; else bit 0 is Seq
}

// Algorithm is one of a State.
type Algorithm struct {
	Name    string // in Linux's crypto API
	Key     sa.Key // with the salt at its end
	ICVBits int    // 0 where the name alone says it
}

// Encap is the UDP encapsulation of a State.
type Encap struct {
	Type     uint16 // UDP_ENCAP_ESPINUDP is 2
	Src, Dst uint16 // ports
}

// Larval reports whether the state only reserves an SPI, and gets its keys when IKE is
// done.
func (k *State) Larval() bool { return k.Cipher == nil && k.Integrity == nil }

// SA makes an SA of a state, without a name, as Read does of one that ip prints. The
// error says what of it cannot be held.
func (k *State) SA() (*sa.SA, error) {
	s := state{parsed: parsed{SA: newSA(), numbered: true}, window: uint64(k.Window), bitmap: k.Bitmap, ring: k.Ring}
	s.Protocol, s.SPI, s.ReqID, s.ESN = sa.Protocol(k.Protocol), k.SPI, k.ReqID, k.ESN
	s.Seq, s.OSeq, s.Direction = k.Seq, k.OSeq, k.Direction
	s.between(k.Src, k.Dst)
	if k.Selector != (sa.Selector{}) {
		selector := k.Selector
		s.Selector = &selector
	}
	s.err = k.fill(&s)
	p := s.finish()
	return p.SA, p.mistake()
}

// fill gives an SA what may be beyond it.
func (k *State) fill(s *state) error {
	if s.Protocol != sa.ESP && s.Protocol != sa.AH {
		return fmt.Errorf("%s is not supported", s.Protocol)
	}
	modes := map[uint8]sa.Mode{0: sa.Transport, 1: sa.Tunnel, 5: sa.Tunnel} // 5: IP-TFS, a tunnel with another payload
	if s.Mode = modes[k.Mode]; s.Mode == 0 {
		return fmt.Errorf("mode %d of linux/xfrm.h is not supported", k.Mode)
	}
	for _, a := range []*Algorithm{k.Cipher, k.Integrity} {
		if a == nil {
			continue
		}
		if err := s.keyed(a == k.Cipher, a.Name, a.Key, a.ICVBits); err != nil {
			return err
		}
	}
	if k.Encap == nil {
		return nil
	}
	const espInUDP = 2
	if k.Encap.Type != espInUDP {
		return fmt.Errorf("encapsulation %d of linux/udp.h is not supported", k.Encap.Type)
	}
	return s.inUDP(k.Encap.Src, k.Encap.Dst)
}
