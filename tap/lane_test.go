package tap

import "testing"

// engines runs a test on all ways in which frames are moved.
func engines(t *testing.T, test func(t *testing.T, how Options)) {
	for name, how := range map[string]Options{"plain": {Engine: Plain}, "ring": {Engine: Ring}, "ring with single reads": {Engine: Ring, SingleReads: true}} {
		t.Run(name, func(t *testing.T) { test(t, how) })
	}
}

// single is a lane with one link, of which Send waits until all is written.
type single struct {
	*Lane
	*Link
}

// link makes a lane from one device to another and ends it with the test.
func link(t testing.TB, how Options, from, to *Device, room, tail int) *single {
	t.Helper()
	how.Room, how.Tail = room, tail
	l := newLink(from, to, 0, how)
	s := &single{Link: l}
	if how.Engine == Ring && from.out == nil {
		s.Lane = newLane(newRing([]*Link{l}, how), l)
	} else {
		p, err := newPlain(l, how)
		if err != nil {
			t.Fatal(err)
		}
		s.Lane = newLane(p, l)
	}
	t.Cleanup(func() {
		s.Stop()
		for {
			if _, _, err := s.Next(); err != nil {
				return
			}
		}
	})
	return s
}

func (s *single) Receive() ([][]byte, error) {
	_, frames, err := s.Next()
	return frames, err
}

func (s *single) Send(frames [][]byte) error {
	err := s.Link.Send(frames)
	if r, ok := s.Lane.engine.(*ring); ok && err == nil {
		err = r.flush()
	}
	return err
}

// flush goes into the kernel until all is written, or given up.
func (r *ring) flush() error {
	if r.uring == nil {
		if err := r.start(); err != nil {
			return r.end(err)
		}
	}
	for {
		if r.over() {
			return r.end(r.reason())
		}
		written := true
		for _, w := range r.ways {
			written = written && len(w.rest) == 0
		}
		if written && !r.stopping() {
			return nil
		}
		if err := r.cycle(); err != nil {
			return r.end(err)
		}
	}
}
