package pipeline

import (
	"tapsec/sa"
	"tapsec/status"
)

// Software is the same pipeline as a host's own IPsec: it lacks nothing, holds every SA,
// and does what a NIC left undone. It is unsafe for concurrent use.
type Software struct {
	*Pipeline
}

// NewSoftware makes a host's IPsec without SAs.
func NewSoftware() *Software {
	sad := NewSAD(everything(), 1)
	sad.resting = true // the NIC opens most of what these SAs carry
	return &Software{Pipeline: New(sad, Options{})}
}

func everything() sa.Profile {
	full, err := sa.ProfileByName("full")
	if err != nil {
		panic("pipeline: " + err.Error())
	}
	return full
}

// Replace is SAD.Replace.
func (s *Software) Replace(bundles [][]*sa.SA) error { return s.sad.Replace(bundles) }

// Remember is SAD.Remember.
func (s *Software) Remember(marks Marks) { s.sad.Remember(marks) }

// AddAll is SAD.AddAll.
func (s *Software) AddAll(bundles [][]*sa.SA) error { return s.sad.AddAll(bundles) }

// Delete is SAD.Delete.
func (s *Software) Delete(id sa.ID) error { return s.sad.Delete(s.sad.Handle(id)) }

// Mark is SAD.Mark.
func (s *Software) Mark(id sa.ID) *sa.Mark { return s.sad.Mark(id) }

// Retry is Check by a NIC that holds one SA alone (an AH with the ESP of its bundle)
// and takes high for the high half of its ESN (RFC 4303 appendix A3). It leaves no trace.
func (s *Software) Retry(frame []byte, one *sa.SA, high uint32) ([]byte, *status.Trailer) {
	presumed := *one
	presumed.SeqHigh, presumed.Seq, presumed.Bitmap = high, 0, nil
	bundle := []*sa.SA{&presumed}
	if e := s.sad.table.Find(one.ID()); one.Protocol == sa.AH && e != nil && e.Partner != nil {
		bundle = append(bundle, asOfNow(e.Partner))
	}
	sad := NewSAD(everything(), 1)
	if _, err := sad.Add(bundle...); err != nil {
		panic("pipeline: an SA in force cannot be added: " + err.Error())
	}
	return New(sad, Options{}).Check(frame)
}

// asOfNow is an SA that begins where the one in force stands now.
func asOfNow(e *entry) *sa.SA {
	now := *e.SA
	if t := e.Mark.T(); t > 0 {
		now.SeqHigh, now.Seq, now.Bitmap = 0, t, nil
	}
	return &now
}
