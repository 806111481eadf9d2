package tap

import (
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// Options say how frames are moved between two devices.
type Options struct {
	Room     int           // longest frame in bytes
	Tail     int           // spare capacity in bytes after a frame
	Engine   Engine        // the zero value is Auto
	BusyPoll time.Duration // how long after the last frame to look for another before sleeping
	Merging  Merging       // of it Wire: what may leave merged by an attached interface

	// SingleReads makes the ring read frame by frame, as it must before Linux 6.7.
	SingleReads bool

	asked Engine // before Auto was replaced; Engine is how TAPs' frames are moved then
}

// Worker is what one goroutine drives: one direction of a queue pair, or both if both devices are TAPs on
// the ring. Next and Send are for that goroutine alone, which calls Next until it returns an error.
// Meanwhile a ring binds it to its thread; with the error it releases descriptors and memory. If Next is
// never called, closing either device does that.
type Worker struct {
	directions []*Direction
	engine     engine
	kind       Engine
	why        string
}

// Join makes the workers between one queue of a and the same queue of b: first the one with the direction
// from a to b, then, if it is another, the one for the way back. A queue can have one join at a time.
//
// If Auto chose the ring but it cannot be made, for instance because descriptors or memory are short, the
// plain engine replaces it, and Engine says why. An attached interface keeps its ring until it is closed, so
// that no frame in it is lost.
func Join(a, b *Device, queue int, o Options) ([]*Worker, error) {
	if queue < 0 || queue >= a.Queues() || queue >= b.Queues() {
		return nil, fmt.Errorf("no queue %d on both %s and %s", queue, a.name, b.name)
	}
	byXDP := o.Engine == XDP || o.Engine == Direct
	if byXDP && !a.attached() && !b.attached() {
		return nil, fmt.Errorf("engine %v is for interfaces that are attached, and %s and %s are TAPs: choose auto", o.Engine, a.name, b.name)
	}
	j := joint{queue: queue, why: "asked for"}
	var err error
	if j.Options, j.why, err = o.settle(); err != nil && !(a.attached() && b.attached()) {
		return nil, err
	}
	workers, err := j.workers(a, b)
	if err == nil {
		return workers, nil
	}
	if j.asked == Plain {
		return nil, j.failed(a, b, err)
	}
	switch {
	case j.asked == Ring:
		return nil, j.refused(a, b, err, Plain)
	case byXDP:
		return nil, j.refused(a, b, err, Auto)
	}
	j.Engine, j.why = Plain, fmt.Sprintf("no ring for queue %d of %s and %s: %v", queue, a.name, b.name, err)
	if workers, err = j.workers(a, b); err != nil {
		return nil, j.failed(a, b, err)
	}
	return workers, nil
}

// joint makes the workers of a queue. Its Engine moves the frames of TAPs.
type joint struct {
	Options
	queue int
	why   string
}

// failed is for what not even the plain engine gets.
func (j *joint) failed(a, b *Device, err error) error {
	return fmt.Errorf("queue %d of %s and %s: %w", j.queue, a.name, b.name, withAdvice(err))
}

// refused is for an engine that was asked for and cannot be had.
func (j *joint) refused(a, b *Device, err error, instead Engine) error {
	if errors.As(err, new(explained)) {
		return fmt.Errorf("engine %v: %w", j.asked, err)
	}
	return fmt.Errorf("engine %v: queue %d of %s and %s: %w, or choose %v", j.asked, j.queue, a.name, b.name, withAdvice(err), instead)
}

// workers makes all of them or none.
func (j *joint) workers(a, b *Device) (all []*Worker, err error) {
	var ringed []*Direction
	defer func() {
		if err == nil {
			return
		}
		for _, w := range all {
			if h, ok := w.engine.(holder); ok {
				h.release()
			}
		}
	}()
	for _, d := range []*Direction{newDirection(a, b, j.queue, j.Options), newDirection(b, a, j.queue, j.Options)} {
		if !d.from.attached() && j.Engine == Ring {
			ringed = append(ringed, d)
			continue
		}
		w, err := j.worker(d)
		if err != nil {
			return all, err
		}
		all = append(all, w)
	}
	if len(ringed) == 0 {
		return all, nil
	}
	r, err := newRing(ringed, j.Options)
	if err != nil {
		return all, err
	}
	w := newWorker(r, ringed...)
	w.kind, w.why = Ring, j.why
	if j.asked == Direct {
		w.leaves(r.direction.to)
	}
	return append(all, w), nil
}

// worker makes the worker of one direction.
func (j *joint) worker(d *Direction) (*Worker, error) {
	why := j.why
	if d.from.attached() && j.asked != Plain {
		m, err := newMapped(d, j.Options)
		if err == nil {
			w := newWorker(m, d)
			w.kind, w.why = m.kind()
			if m.exit != nil && j.asked == Direct {
				w.leaves(d.to)
			}
			return w, nil
		}
		if j.asked != Auto {
			return nil, err
		}
		why = fmt.Sprintf("no packet ring for queue %d of %s: %v", j.queue, d.from.name, err)
	}
	p, err := newPlain(d, j.Options)
	if err != nil {
		return nil, err
	}
	w := newWorker(p, d)
	w.kind, w.why = Plain, why
	return w, nil
}

// advice says what to do if a ring cannot be made.
func advice(err error) string {
	switch {
	case errors.Is(err, unix.EMFILE), errors.Is(err, unix.ENFILE):
		return "allow more open files (ulimit -n)"
	case errors.Is(err, unix.ENOMEM):
		return "allow more locked memory (ulimit -l)"
	case errors.Is(err, os.ErrNoDeadline):
		return "allow more of that (sysctl fs.epoll.max_user_watches), or see what the container forbids"
	}
	return "see what the kernel or the container forbids"
}

// withAdvice adds that to an error that says nothing of the kind.
func withAdvice(err error) error {
	if errors.As(err, new(explained)) {
		return err
	}
	return fmt.Errorf("%w: %s", err, advice(err))
}

func newWorker(e engine, directions ...*Direction) *Worker {
	for _, d := range directions {
		d.engine = e
	}
	return &Worker{directions: directions, engine: e}
}

// Directions returns the worker's directions.
func (w *Worker) Directions() []*Direction { return w.directions }

// leaves notes that frames leave an attached interface past its queueing discipline.
func (w *Worker) leaves(to *Device) {
	w.kind, w.why = Direct, fmt.Sprintf("%s; what leaves %s does so past its queueing discipline", w.why, to.name)
}

// Engine returns how the worker moves frames, any but Auto, and a sentence why.
func (w *Worker) Engine() (Engine, string) { return w.kind, w.why }

// Open binds the worker to the calling goroutine, as the first Next would; nothing is moved yet. Next
// returns its error again.
func (w *Worker) Open() error { return w.engine.open() }

// Rounds counts the worker's rounds: one for every batch, and at least one a second when there are no
// frames. Anyone may call it, to see that the worker is alive.
func (w *Worker) Rounds() uint64 { return w.engine.rounds() }

// pulse counts rounds.
type pulse struct{ count atomic.Uint64 }

func (p *pulse) rounds() uint64 { return p.count.Load() }

// Next waits for at least one frame and returns its direction and all frames that are ready, up to Batch, in
// order. They lie in the direction's slots and are the caller's until its next call. What the caller sends,
// once for each Next, may be written only with that call. After an error there are no more frames; every
// later call returns it again.
func (w *Worker) Next() (*Direction, [][]byte, error) { return w.engine.next() }

// Stop makes Next, even a blocked one, return ErrStopped once the frames already received have been handed
// out. Anyone may call it.
func (w *Worker) Stop() { w.engine.stop() }
