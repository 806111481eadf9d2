package transport

import (
	"time"

	"tapsec/sa"
)

// Snapshot is what the Receiver knows of its SAs, for WriteState. Clean says
// that no frame comes any more.
func (r *Receiver) Snapshot(clean bool) State {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := State{Clean: clean}
	for _, e := range r.sas.List() {
		a := e.Value
		s.SAs = append(s.SAs, SavedSA{
			ID: a.ID(), Fingerprint: Fingerprint(a.SA), Window: a.window.Snapshot(), T: a.Mark.T(),
			Packets: a.usage.Packets, Bytes: a.usage.Bytes, Since: time.Unix(0, a.usage.Since),
		})
	}
	return s
}

// Resume takes windows, ESN marks and lifetimes over from a State before the
// first frame. SAs that it does not know stay fresh. Notes say what was left
// out; the error says why the state is not taken, and then nothing has changed.
func (r *Receiver) Resume(s *State) (notes []string, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	var sas []*sa.SA
	for _, e := range r.sas.List() {
		sas = append(sas, e.SA)
	}
	if notes, err = s.Check(sas); err != nil {
		return nil, err
	}
	for _, e := range r.sas.List() {
		a := e.Value
		saved, known := s.SA(a.SA)
		if !known {
			continue
		}
		if err := a.window.Restore(saved.Window); err != nil {
			return nil, err
		}
		a.Mark.Authenticated(saved.T)
		a.usage.Packets, a.usage.Bytes, a.usage.Since = saved.Packets, saved.Bytes, saved.Since.UnixNano()
	}
	return notes, nil
}
