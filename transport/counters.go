package transport

import "tapsec/sa"

// counters count every frame once.
type counters struct {
	verdicts [Drop + 1]uint64
	reasons  [NumReasons]uint64
}

// count closes the account of a frame.
func (c *Consumer) count(v Verdict, r Reason) {
	c.counters.verdicts[v]++
	c.counters.reasons[r]++
	if n := len(c.via); v == Drop && n > 0 {
		c.via[n-1].tally.Dropped[r]++
	}
}

// Summary is the account of all frames so far: Frames is the sum of the verdicts.
type Summary struct {
	Verdicts map[string]uint64 `json:"verdicts"`
	Reasons  map[string]uint64 `json:"reasons"` // of the frames held and dropped
	Frames   uint64            `json:"frames"`
	Waiting  int               `json:"datagrams_waiting"` // for fragments
}

// Summary sums up.
func (c *Consumer) Summary() Summary {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := Summary{Verdicts: map[string]uint64{}, Reasons: map[string]uint64{}, Waiting: c.fragments.Stats().Datagrams}
	for v := Deliver; v <= Drop; v++ {
		s.Verdicts[v.String()] = c.counters.verdicts[v]
		s.Frames += c.counters.verdicts[v]
	}
	for r, n := range c.counters.reasons {
		if n > 0 && Reason(r) != None {
			s.Reasons[Reason(r).String()] = n
		}
	}
	return s
}

// SAState is what can be seen of one SA at run time.
type SAState struct {
	*sa.SA
	Window WindowState
	T      uint64 // highest number authenticated, 64 bits with ESN
	Tally  Tally
	Since  int64 // ns since the Unix epoch: when its lifetime began
}

// States lists the SAs in no particular order.
func (c *Consumer) States() []SAState {
	c.mu.Lock()
	defer c.mu.Unlock()
	var all []SAState
	for _, e := range c.sas.List() {
		a := e.Value
		all = append(all, SAState{SA: a.SA, Window: a.window.State(), T: a.Mark.T(), Tally: a.tally, Since: a.usage.Since})
	}
	return all
}
