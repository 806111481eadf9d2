package tap

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

const (
	submissions = 512  // for each way a batch of writes, one of reads, and a few
	completions = 1024 // never more are under way
)

// What a completion is of; its data holds kind, way and index.
const (
	ofRead = iota + 1
	ofWrite
	ofPoll
	ofAlarm
	ofCancel
)

func tag(kind, way, index int) uint64 { return uint64(kind)<<32 | uint64(way)<<16 | uint64(index) }

// ring moves the frames of one or two links by one io_uring, on one thread: what all of them have to
// write and to read goes into the kernel with one call.
type ring struct {
	uring *uring // made by the first next, on its thread
	ways  []*way
	turn  int   // of the ways, which hands out first
	last  error // what ended it; all has been let go of then
	busy  time.Duration
	awake time.Time // when something last happened, where busy is set

	failure   error // an interface is lost: what is under way ends, and nothing more is read
	cancelled bool  // the reads
	stopped   atomic.Bool

	mutex sync.Mutex // guards what wakes the thread
	alarm int        // an eventfd while the ring is up, else -1
}

// next hands out the frames of a link that has some, and goes into the kernel when none has:
//
//  1. Make the ring, the first time.
//  2. Hand out a batch of a link whose last one has been written.
//  3. Where all has ended, let go of everything and say why.
//  4. Else write, read and wait in one call.
func (r *ring) next() (*Link, [][]byte, error) {
	if r.last != nil {
		return nil, nil, r.last
	}
	if r.uring == nil {
		if err := r.start(); err != nil {
			return nil, nil, r.end(err)
		}
	}
	for {
		for range r.ways {
			w := r.ways[r.turn]
			r.turn = (r.turn + 1) % len(r.ways)
			if frames := w.handOut(); len(frames) > 0 {
				return w.link, frames, nil
			}
		}
		if r.over() {
			return nil, nil, r.end(r.reason())
		}
		if err := r.cycle(); err != nil {
			return nil, nil, r.end(err)
		}
	}
}

// start makes the ring on the calling goroutine's thread, to which it is bound from then on.
func (r *ring) start() (err error) {
	runtime.LockOSThread()
	r.awake = time.Now()
	if r.uring, err = newUring(submissions, completions); err != nil {
		return err
	}
	for _, w := range r.ways {
		if err := w.open(r.uring); err != nil {
			return err
		}
	}
	r.mutex.Lock()
	defer r.mutex.Unlock()
	if r.alarm, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err != nil {
		return err
	}
	s := r.uring.submit()
	s.op, s.fd, s.opFlags, s.data = opPollAdd, int32(r.alarm), unix.POLLIN, tag(ofAlarm, 0, 0)
	return nil
}

func newRing(links []*Link, o Options) *ring {
	r := &ring{busy: o.BusyPoll, alarm: -1}
	for i, l := range links {
		r.ways = append(r.ways, &way{link: l, index: i, in: -1, out: -1, single: o.SingleReads})
	}
	return r
}

// send queues the frames; the next enter writes them.
func (r *ring) send(l *Link, frames [][]byte) error {
	if r.last != nil {
		l.tally.HostDown += uint64(len(frames))
		return r.last
	}
	for _, w := range r.ways {
		if w.link != l {
			continue
		}
		if len(w.rest) > 0 {
			panic("tap: Send twice without Next in between")
		}
		w.rest = frames
	}
	return nil
}

// stop may be called from any goroutine.
func (r *ring) stop() {
	r.stopped.Store(true)
	r.mutex.Lock()
	defer r.mutex.Unlock()
	if r.alarm >= 0 {
		unix.Write(r.alarm, []byte{1, 0, 0, 0, 0, 0, 0, 0}) // fails only if it has been written often enough
	}
}

// stopping tells whether nothing more is to be read.
func (r *ring) stopping() bool { return r.failure != nil || r.stopped.Load() }

func (r *ring) reason() error {
	if r.failure != nil {
		return r.failure
	}
	return ErrStopped
}

// over tells whether the ring is to end and nothing is under way.
func (r *ring) over() bool {
	if !r.stopping() {
		return false
	}
	over := true
	for _, w := range r.ways {
		if !w.end() {
			over = false
		}
	}
	return over
}

// end lets go of the ring, of the descriptors and of the memory, and of the thread.
func (r *ring) end(why error) error {
	r.last = why
	r.mutex.Lock()
	defer r.mutex.Unlock()
	if r.alarm >= 0 {
		unix.Close(r.alarm)
		r.alarm = -1
	}
	if r.uring != nil {
		r.uring.close()
	}
	for _, w := range r.ways {
		w.close()
		w.link.public.store(w.link.tally)
	}
	runtime.UnlockOSThread()
	return why
}

// cycle goes into the kernel once.
//
//  1. Queue the writes that are due, then reads; where the ring is to end cancel those instead.
//  2. Enter. Writes end in the call, so it waits for those and for nothing else; without any it
//     sleeps until a frame comes, a pause ends, or it is time to look after the interfaces.
//  3. Take what was completed, and publish the counts.
func (r *ring) cycle() error {
	batches, limit := 0, heartbeat
	for _, w := range r.ways {
		batches += w.queueWrites()
		if w.pause > 0 && w.writing == 0 {
			limit = min(limit, w.pausing())
		}
		if !r.stopping() {
			w.queueReads()
		}
	}
	if r.stopping() && !r.cancelled {
		r.cancelled = true
		s := r.uring.submit()
		s.op, s.fd, s.opFlags, s.data = opAsyncCancel, -1, cancelAll|cancelAny, tag(ofCancel, 0, 0)
	}
	wait := max(batches, 1)
	if batches == 0 && r.spinning() {
		wait = 0
	}
	if err := r.uring.enter(wait, limit); err != nil {
		return err
	}
	if !r.complete() && limit == heartbeat && wait > 0 {
		r.look()
	}
	return nil
}

// spinning tells whether something happened so lately that it is not worth sleeping.
func (r *ring) spinning() bool { return r.busy > 0 && time.Since(r.awake) < r.busy }

// complete takes the completions, and tells whether there were any.
func (r *ring) complete() (some bool) {
	for {
		c, ok := r.uring.take()
		if !ok {
			break
		}
		some = true
		kind, way, index := int(c.data>>32), int(c.data>>16&0xffff), int(c.data&0xffff)
		switch kind {
		case ofRead:
			r.fail(r.ways[way].haveRead(c, index))
		case ofWrite:
			r.fail(r.ways[way].haveWritten(c, index))
		case ofPoll:
			r.ways[way].polling = false
		}
	}
	if some && r.busy > 0 {
		r.awake = time.Now()
	}
	for _, w := range r.ways {
		w.link.public.store(w.link.tally)
	}
	return some
}

// look notices interfaces that are gone: a deletion wakes the thread a moment before it shows, so
// that the wake-up can come too early.
func (r *ring) look() {
	for _, w := range r.ways {
		r.fail(w.remains())
	}
}

// fail notes the first failure.
func (r *ring) fail(err error) {
	if r.failure == nil {
		r.failure = err
	}
}

// remains tells whether a device is open and its interface there.
func (d *Device) remains(f *os.File) error {
	err := control(f, func(fd int) error {
		_, err := d.nameNow(fd)
		return err
	})
	switch {
	case errors.Is(err, os.ErrClosed):
		return fmt.Errorf("%s: %w", d.name, err)
	case errors.Is(err, unix.EBADFD), errors.Is(err, unix.ENODEV):
		return d.gone()
	}
	return nil
}
