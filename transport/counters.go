package transport

import (
	"iter"
	"slices"
	"time"

	"tapsec/sa"
)

// counters count every frame once.
type counters struct {
	verdicts [Drop + 1]uint64
	reasons  [NumReasons]uint64
}

// count closes the account of a frame.
func (r *Receiver) count(f *frame, v Verdict, reason Reason) {
	r.counters.verdicts[v]++
	r.counters.reasons[reason]++
	if a := f.carrier(); v == Drop && a != nil {
		a.drop(reason)
		if reason.Failed() {
			r.fail(a, reason)
		}
	}
}

// Failure is what failed of an SA's frames since the last call of Failures.
type Failure struct {
	SA     string // name
	Reason Reason // of the latest
	Frames uint64
	First  bool // none had failed earlier
}

func (r *Receiver) fail(a *association, why Reason) {
	if a.troubled().untold == 0 {
		r.failing = append(r.failing, a)
	}
	a.failed++
	a.untold++
	a.why = why
}

// Failures lists the SAs whose frames have failed since its last call.
func (r *Receiver) Failures() (all []Failure) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, a := range r.failing {
		all = append(all, Failure{SA: a.Name, Reason: a.why, Frames: a.untold, First: a.failed == a.untold})
		a.untold = 0
	}
	r.failing = nil
	return all
}

// Summary is the account of all frames so far: Frames is the sum of the verdicts.
type Summary struct {
	Verdicts map[string]uint64 `json:"verdicts"`
	Reasons  map[string]uint64 `json:"reasons"` // of the frames held and dropped
	Frames   uint64            `json:"frames"`
	Waiting  int               `json:"datagrams_waiting"` // for fragments
}

// Summary returns the account.
func (r *Receiver) Summary() Summary {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := Summary{Verdicts: map[string]uint64{}, Reasons: map[string]uint64{}, Waiting: r.fragments.Stats().Datagrams}
	for v := Deliver; v <= Drop; v++ {
		s.Verdicts[v.String()] = r.counters.verdicts[v]
		s.Frames += r.counters.verdicts[v]
	}
	for reason, n := range r.counters.reasons {
		if n > 0 && Reason(reason) != None {
			s.Reasons[Reason(reason).String()] = n
		}
	}
	return s
}

// SAState is what can be seen of one SA at run time.
type SAState struct {
	*sa.SA
	Window WindowState
	T      uint64 // with ESN the highest number authenticated, 64 bits; without it 0
	Tally  Tally
	Since  time.Time // when its lifetime began
}

// States gives the SAs in no particular order. Frames wait for a hundred of them at a time; an SA that
// is added or deleted meanwhile may be among them or not.
func (r *Receiver) States() iter.Seq[SAState] {
	return func(yield func(SAState) bool) {
		for some := range slices.Chunk(r.entries(), 100) {
			for _, s := range r.statesOf(some) {
				if !yield(s) {
					return
				}
			}
		}
	}
}

func (r *Receiver) entries() []*entry {
	r.mu.Lock()
	table := r.sas
	r.mu.Unlock()
	return table.List()
}

func (r *Receiver) statesOf(some []*entry) []SAState {
	r.mu.Lock()
	defer r.mu.Unlock()
	now, clock := time.Now(), r.ledger.Clock()
	states := make([]SAState, len(some))
	for i, e := range some {
		states[i] = r.state(e.Value, now, clock)
	}
	return states
}

// Count is the number of SAs.
func (r *Receiver) Count() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.sas.Count()
}

func (r *Receiver) state(a *association, now time.Time, clock time.Duration) SAState {
	return SAState{SA: a.SA, Window: a.known.Window(), T: a.Mark.T(), Tally: a.tally(), Since: now.Add(a.known.Usage().Began - clock)}
}
