package pipeline

import "tapsec/sa"

// Software is the same pipeline as a host's own IPsec: it lacks nothing, holds
// every SA, and does what a NIC has left. It is unsafe for concurrent use.
type Software struct {
	*Pipeline
	bundles map[sa.ID][]*sa.SA
}

// NewSoftware makes a host's IPsec without SAs.
func NewSoftware() *Software {
	return &Software{Pipeline: New(NewSAD(everything(), 1), Options{})}
}

func everything() sa.Profile {
	full, err := sa.ProfileByName("full")
	if err != nil {
		panic("pipeline: " + err.Error())
	}
	return full
}

// Replace is that of SAD.
func (s *Software) Replace(bundles [][]*sa.SA) error {
	if err := s.sad.Replace(bundles); err != nil {
		return err
	}
	s.bundles = map[sa.ID][]*sa.SA{}
	for _, b := range bundles {
		s.bundles[b[0].ID()] = b
	}
	return nil
}

// Mark is that of SAD.
func (s *Software) Mark(id sa.ID) *sa.Mark { return s.sad.Mark(id) }

// Retry is Process by a NIC that holds one SA alone, an AH with the ESP of its
// bundle, and presumes that the high half of its ESN is high (RFC 4303 appendix
// A3). Nothing of it stays.
func (s *Software) Retry(frame []byte, one *sa.SA, high uint32) []byte {
	presumed := *one
	presumed.SeqHigh, presumed.SeqLow = high, nil
	bundle := []*sa.SA{&presumed}
	if b := s.bundles[one.ID()]; len(b) == 2 {
		bundle = append(bundle, s.asOfNow(b[1]))
	}
	sad := NewSAD(everything(), 1)
	if _, err := sad.Add(bundle...); err != nil {
		panic("pipeline: an SA in force cannot be added: " + err.Error())
	}
	return New(sad, Options{}).Process(frame)
}

// asOfNow is an SA that begins where the one in force has come to.
func (s *Software) asOfNow(one *sa.SA) *sa.SA {
	now := *one
	if t := s.Mark(one.ID()).T(); t > 0 {
		low := uint32(t)
		now.SeqHigh, now.SeqLow = uint32(t>>32), &low
	}
	return &now
}
