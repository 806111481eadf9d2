package tap

import (
	"testing"

	"tapsec/internal/lab/rig"
)

// engines runs a test on all ways in which frames are moved.
func engines(t *testing.T, test func(t *testing.T, how Options)) {
	for name, how := range map[string]Options{"plain": {Engine: Plain}, "ring": {Engine: Ring}, "ring with single reads": {Engine: Ring, SingleReads: true}} {
		t.Run(name, func(t *testing.T) { test(t, how) })
	}
}

// attachments is engines, and those that attached interfaces alone have.
func attachments(t *testing.T, test func(t *testing.T, how Options)) {
	engines(t, test)
	t.Run("direct", func(t *testing.T) {
		rig.Require(t)
		test(t, Options{Engine: Direct})
	})
	t.Run("xdp", func(t *testing.T) {
		requireXDP(t)
		test(t, Options{Engine: XDP})
	})
}

func requireXDP(t *testing.T) {
	t.Helper()
	rig.Require(t)
	if err := CanRedirect(); err != nil {
		rig.Missing(t, err.Error())
	}
}

// single is a worker with one direction, of which Send waits until all is settled.
type single struct {
	*Worker
	*Direction
}

// link makes a worker from one device to another and ends it with the test.
func link(t testing.TB, how Options, from, to *Device, room, tail int) *single {
	t.Helper()
	how.Room, how.Tail = room, tail
	d := newDirection(from, to, 0, how)
	s := &single{Direction: d}
	if how.asked = how.Engine; how.Engine == XDP || how.Engine == Direct {
		how.Engine = Ring
	}
	switch {
	case how.Engine == Ring && from.attached():
		m, err := newMapped(d, how)
		if err != nil {
			t.Fatal(err)
		}
		s.Worker = newWorker(m, d)
	case how.Engine == Ring:
		r, err := newRing([]*Direction{d}, how)
		if err != nil {
			t.Fatal(err)
		}
		s.Worker = newWorker(r, d)
	default:
		p, err := newPlain(d, how)
		if err != nil {
			t.Fatal(err)
		}
		s.Worker = newWorker(p, d)
	}
	t.Cleanup(s.end)
	return s
}

// end ends the worker.
func (s *single) end() {
	s.Stop()
	for {
		if _, _, err := s.Next(); err != nil {
			return
		}
	}
}

func (s *single) Receive() ([][]byte, error) {
	_, frames, err := s.Next()
	return frames, err
}

func (s *single) Send(frames [][]byte) error {
	err := s.Direction.Send(frames)
	if r, ok := s.Worker.engine.(*ring); ok && err == nil {
		err = r.flush()
	}
	return err
}

// flush goes into the kernel until all is settled, or given up.
func (r *ring) flush() error {
	if err := r.open(); err != nil {
		return err
	}
	for {
		if r.over() {
			return r.finish(r.reason())
		}
		settled := true
		for _, p := range r.ports {
			settled = settled && len(p.writer.rest) == 0
		}
		if settled && !r.stopping() {
			return nil
		}
		if err := r.cycle(); err != nil {
			return r.finish(err)
		}
	}
}
