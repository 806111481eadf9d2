package bench

import (
	"errors"
	"fmt"
	"time"
)

// Queues is how fast a number of queues are emptied at once, each by its own core. Another core sent the
// frames before.
type Queues struct {
	Variant    string  `json:"variant"`
	Queues     int     `json:"queues"`
	Rate       float64 `json:"frames_per_s"`
	RateSpread spread  `json:"frames_per_s_spread"`
	Times      float64 `json:"times_one_queue"`
	Steering   string  `json:"steering"`
	Rounds     int     `json:"rounds"`
	Lost       int     `json:"lost_rounds"`
}

const (
	mostQueues = 16
	candidates = 32 // SAs for each queue, enough for the kernel's hash to give some to it
)

// several is a forwarder with traffic for each of its queues.
type several struct {
	*forwarder
	traffics []*traffic // by queue
	rates    []float64
	lost     int
}

// measureQueues compares 1, 2, 4 ... queues.
func (r *Report) measureQueues(e effort) (err error) {
	if len(r.cores) < 2 {
		r.note("several queues are left out: they take two cores, and this process may use one")
		return nil
	}
	var all []*several
	defer func() {
		for _, s := range all {
			err = errors.Join(err, s.close())
		}
	}()
	for count := 1; count <= min(len(r.cores), mostQueues); count *= 2 {
		s, err := r.several(count)
		if err != nil {
			return fmt.Errorf("%d queues: %w", count, err)
		}
		all = append(all, s)
	}
	for i := range e.turns(len(all), e.queues) {
		s := all[i]
		rate, err := s.round(r.cores)
		switch {
		case errors.Is(err, errLoss):
			s.lost++
			r.Losses = append(r.Losses, fmt.Sprintf("%d queues: %v", len(s.meters), err))
		case err != nil:
			return err
		default:
			s.rates = append(s.rates, rate)
		}
	}
	for _, s := range all {
		q := s.row()
		if one := quantile(all[0].rates, 0.5); one > 0 {
			q.Times = q.Rate / one
		}
		r.Queues = append(r.Queues, q)
	}
	return nil
}

func (s *several) row() Queues {
	q := Queues{Variant: s.variant, Queues: len(s.meters), RateSpread: spreadOf(s.rates), Steering: s.steering.String(), Rounds: len(s.rates), Lost: s.lost}
	q.Rate = q.RateSpread.Median
	return q
}

// several opens a forwarder with a worker on each of the first cores, and finds traffic for each.
func (r *Report) several(count int) (s *several, err error) {
	var all []suite
	for i := range candidates * count {
		all = append(all, newSuite(uint32(0x2000+i)))
	}
	variant := OnPlain
	if r.ring {
		variant = OnRing
	}
	f, err := plan{variant: variant, id: count, mtu: Standard + overhead, queues: count, cores: r.cores, suites: all}.open()
	if err != nil {
		return nil, err
	}
	s = &several{forwarder: f, traffics: make([]*traffic, count)}
	if err := s.find(all); err != nil {
		return nil, errors.Join(err, s.close())
	}
	return s, nil
}

// find sends a frame of each SA until every queue has an SA whose frames come to it.
func (s *several) find(all []suite) error {
	missing := len(s.traffics)
	for _, one := range all {
		t, err := newTraffic(one, Standard)
		if err != nil {
			return err
		}
		was := make([]uint64, len(s.traffics))
		for queue := range s.traffics {
			was[queue] = s.verified(queue)
		}
		before, err := s.moved()
		if err != nil {
			return err
		}
		if err := errors.Join(s.send(t, 0, 1), s.settle(before, 1)); err != nil {
			return err
		}
		for queue := range s.traffics {
			if s.verified(queue) > was[queue] && s.traffics[queue] == nil {
				s.traffics[queue] = t
				missing--
			}
		}
		if missing == 0 {
			return nil
		}
	}
	return fmt.Errorf("of %d SAs none came to %d of the %d queues", len(all), missing, len(s.traffics))
}

// round fills the queues, each from a core other than its own, empties all at once, and returns the frames per
// second between the first worker's first reading and the last one's last.
func (s *several) round(cores []int) (float64, error) {
	before, err := s.moved()
	if err != nil {
		return 0, err
	}
	for queue, m := range s.meters {
		m.arm()
		err = errors.Join(err, onCore(cores[(queue+1)%len(cores)], func() error { return s.send(s.traffics[queue], 0, queued) }))
	}
	stayAwake(calming)
	for _, m := range s.meters {
		m.release()
	}
	var first, last time.Duration
	frames := 0
	for _, m := range s.meters {
		got, lost := m.wait()
		if err = errors.Join(err, lost); lost != nil {
			continue
		}
		if first == 0 || got.from.wall < first {
			first = got.from.wall
		}
		last = max(last, got.to.wall)
		frames += got.to.frames - got.from.frames
	}
	if err = errors.Join(err, s.settle(before, queued*len(s.meters))); err != nil {
		return 0, err
	}
	return float64(frames) / (last - first).Seconds(), nil
}
