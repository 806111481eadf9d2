package bench

import (
	"errors"
	"fmt"
	"time"

	"tapsec/internal/lab/rig"
)

// variants are those that this machine can run.
func (r *Report) variants() []string {
	if r.ring {
		return []string{NullPlain, NullRing, OnPlain, OnRing}
	}
	return []string{NullPlain, OnPlain}
}

// cell is one suite and size on one variant.
type cell struct {
	*forwarder
	*traffic
	readings []reading
	lost     int
}

// measureCPU drains frames of every size.
func (r *Report) measureCPU(e effort) error {
	for _, size := range sizes {
		if err := r.drain(size, e); err != nil {
			return fmt.Errorf("%d octets: %w", size, err)
		}
	}
	r.divide()
	return nil
}

// drain measures every suite on every variant with one size of payload:
//
//  1. Open a forwarder for each variant, with an MTU for the largest frame.
//  2. Look at each frame of each cell, which warms up too.
//  3. Measure: sweeps over all cells, each in an order of its own.
//  4. Look at each frame once more.
func (r *Report) drain(size int, e effort) error {
	rows, err := r.sweep(size, e, e.cpu, r.variants(), suites())
	r.Rows = append(r.Rows, rows...)
	return err
}

func (r *Report) sweep(size int, e effort, budget time.Duration, variants []string, all []suite) (rows []Row, err error) {
	forwarders, cells, err := cells(size, variants, all)
	defer func() {
		for _, f := range forwarders {
			err = errors.Join(err, f.close())
		}
	}()
	if err != nil {
		return nil, err
	}
	if err := r.inspect(forwarders, cells); err != nil {
		return nil, err
	}
	for i := range e.turns(len(cells), budget) {
		c := cells[i]
		got, err := c.round(c.traffic)
		switch {
		case errors.Is(err, errLoss):
			c.lost++
			r.lose(c, err)
		case err != nil:
			return nil, err
		default:
			c.readings = append(c.readings, got)
		}
	}
	for _, c := range cells {
		rows = append(rows, c.row())
	}
	return rows, r.inspect(forwarders, cells)
}

// cells opens the forwarders and seals the traffic.
func cells(size int, variants []string, all []suite) (forwarders []*forwarder, cells []*cell, err error) {
	var traffics []*traffic
	for _, s := range all {
		t, err := newTraffic(s, size)
		if err != nil {
			return nil, nil, err
		}
		traffics = append(traffics, t)
	}
	for id, variant := range variants {
		f, err := plan{variant: variant, id: id, mtu: size + overhead, queues: 1, suites: all}.open()
		if err != nil {
			return forwarders, nil, err
		}
		forwarders = append(forwarders, f)
		for _, t := range traffics {
			cells = append(cells, &cell{forwarder: f, traffic: t})
		}
	}
	return forwarders, cells, nil
}

// calming is how long the runtime's monitor takes to slow down from every 20 us, as after an idle process, to
// every 10 ms, as in a steady stream. Without it, whole rounds of variants with a call for each frame took a
// third longer.
const calming = 6 * time.Millisecond

// round fills the wire's queue, lets the forwarder move the frames, and reads its clocks. A loss is an error
// that wraps errLoss.
func (f *forwarder) round(t *traffic) (reading, error) {
	before, err := f.moved()
	if err != nil {
		return reading{}, err
	}
	f.meters[0].arm()
	sendErr := f.send(t, 0, queued)
	stayAwake(calming)
	f.meters[0].release()
	if sendErr != nil {
		return reading{}, sendErr
	}
	got, lost := f.meters[0].wait()
	return got, errors.Join(lost, f.settle(before, queued))
}

// send sends frames of a traffic, beginning with the given one.
func (f *forwarder) send(t *traffic, first, count int) error {
	for i := first; i < first+count; i++ {
		if err := f.in.Send(t.frames[i%distinct]); err != nil {
			return fmt.Errorf("send frame %d out of %s: %w", i, f.enter, err)
		}
	}
	return nil
}

// inspect sends each frame of each cell once and checks what comes out.
func (r *Report) inspect(forwarders []*forwarder, cells []*cell) error {
	for _, f := range forwarders {
		out, err := rig.OpenSocket(f.leave)
		if err != nil {
			return err
		}
		for _, c := range cells {
			if c.forwarder != f {
				continue
			}
			if err := f.look(c.traffic, out); errors.Is(err, errLoss) {
				r.Wrong = append(r.Wrong, fmt.Sprintf("%s, %d octets, %s: %v", c.suite, c.size, c.variant, err))
			} else if err != nil {
				return errors.Join(err, out.Close())
			} else {
				r.Inspected += distinct
			}
		}
		if err := out.Close(); err != nil {
			return err
		}
	}
	return nil
}

// look sends each frame of a traffic once and receives them in order, a few at a time, since more would not fit
// into an unprivileged socket.
func (f *forwarder) look(t *traffic, out *rig.Socket) error {
	const together = 16
	before, err := f.moved()
	if err != nil {
		return err
	}
	for i := range distinct {
		if i%together == 0 {
			if err := f.send(t, i, together); err != nil {
				return err
			}
		}
		frame, err := out.Receive(settled)
		if err != nil {
			return fmt.Errorf("%w: frame %d: %v", errLoss, i, err)
		}
		if err := f.judge(t, i, frame); err != nil {
			return err
		}
	}
	return f.settle(before, distinct)
}

// judge reports whether frame i came out as it should.
func (f *forwarder) judge(t *traffic, i int, frame []byte) error {
	check := t.annotated
	if f.adapter == nil {
		check = t.untouched
	}
	if err := check(i, frame); err != nil {
		return fmt.Errorf("%w: %w", errLoss, err)
	}
	return nil
}
