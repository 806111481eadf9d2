package bench

import (
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"tapsec/internal/lab/rig"
)

const (
	spaced    = 128 // frames of a round, few enough for a socket without privileges
	unsettled = 28  // the first of those, not counted since they follow a pause
)

// Latency is how long frames that come one by one take, in nanoseconds: from just before one is sent
// out of the wire TAP until the kernel has it from the host TAP.
type Latency struct {
	Variant string  `json:"variant"`
	Pace    int     `json:"frames_per_s"`
	P50     float64 `json:"p50_ns"`
	P99     float64 `json:"p99_ns"`
	P999    float64 `json:"p99.9_ns"`
	Frames  int     `json:"frames"`
	Lost    int     `json:"lost_rounds"`
}

// sleepers are the variants that sleep between frames, each in its own manner.
func (r *Report) sleepers() []string {
	if r.ring {
		return []string{NullBlocking, NullPlain, OnPlain, OnRing, OnBusyRing}
	}
	return []string{NullBlocking, NullPlain, OnPlain}
}

// measureLatency wants two cores: the forwarders stay on one, the sender spins on the other.
func (r *Report) measureLatency(e effort) error {
	if len(r.cores) < 2 {
		r.note("latency is left out: it takes two cores, and this process may use one")
		return nil
	}
	for _, p := range []struct {
		pace   int
		budget time.Duration
	}{{1000, e.slow}, {20000, e.fast}} {
		err := onCore(r.cores[1], func() error { return r.latencyAt(p.pace, p.budget, e) })
		if err != nil {
			return fmt.Errorf("%d frames/s: %w", p.pace, err)
		}
	}
	return nil
}

// latencyAt measures at one pace: rounds of all variants, in random order.
func (r *Report) latencyAt(pace int, budget time.Duration, e effort) (err error) {
	all, t, err := r.timed(pace)
	defer func() {
		for _, m := range all {
			err = errors.Join(err, m.out.Close(), m.close())
		}
	}()
	if err != nil {
		return err
	}
	for _, m := range all {
		if err := m.look(t, m.out); err != nil {
			return err
		}
	}
	for i := range e.turns(len(all), budget) {
		m := all[i]
		if err := m.round(t); errors.Is(err, errLoss) {
			m.lost++
			r.Losses = append(r.Losses, fmt.Sprintf("latency, %d frames/s, %s: %v", pace, m.variant, err))
			m.forget()
		} else if err != nil {
			return err
		} else {
			r.Inspected += spaced
		}
	}
	for _, m := range all {
		r.Latency = append(r.Latency, Latency{m.variant, pace, quantile(m.took, 0.5), quantile(m.took, 0.99), quantile(m.took, 0.999),
			len(m.took), m.lost})
	}
	return nil
}

// timed is a forwarder whose frames are timed, in nanoseconds.
type timed struct {
	*forwarder
	out  *rig.Socket
	gap  time.Duration
	took []float64 // by frame
	lost int
}

func (r *Report) timed(pace int) (all []*timed, t *traffic, err error) {
	headline := suites()[:1]
	if t, err = newTraffic(headline[0], Standard); err != nil {
		return nil, nil, err
	}
	for id, variant := range r.sleepers() {
		f, err := plan{variant: variant, id: id, mtu: Standard + overhead, queues: 1, suites: headline}.open()
		if err != nil {
			return all, t, err
		}
		out, err := rig.OpenSocket(f.host)
		if err != nil {
			return all, t, errors.Join(err, f.close())
		}
		all = append(all, &timed{forwarder: f, out: out, gap: time.Second / time.Duration(pace)})
		if err := out.KeepTime(); err != nil {
			return all, t, err
		}
	}
	return all, t, nil
}

// round sends frames at that pace, and notes when each came out.
func (m *timed) round(t *traffic) error {
	before, err := m.moved()
	if err != nil {
		return err
	}
	var sent [spaced]time.Duration
	for i := range sent {
		sent[i] = clock(unix.CLOCK_REALTIME)
		if err := m.send(t, i, 1); err != nil {
			return err
		}
		for clock(unix.CLOCK_REALTIME)-sent[i] < m.gap {
		}
	}
	var took []float64
	for i := range sent {
		frame, err := m.out.Receive(settled)
		if err != nil {
			return fmt.Errorf("%w: frame %d: %v", errLoss, i, err)
		}
		if err := m.judge(t, i, frame); err != nil {
			return err
		}
		took = append(took, float64(m.out.Came().UnixNano()-int64(sent[i])))
	}
	m.took = append(m.took, took[unsettled:]...)
	return m.settle(before, spaced)
}

// forget receives what an abandoned round has left behind.
func (m *timed) forget() {
	for {
		if _, err := m.out.Receive(100 * time.Millisecond); err != nil {
			return
		}
	}
}
