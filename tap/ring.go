package tap

import (
	"fmt"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const (
	submissions = 8 * Batch       // for each port a batch of writes and a batch of reads, and a few more
	completions = 2 * submissions // as many as can be under way

	lastPatience = 2 * heartbeat // with a kernel that does not complete cancelled requests
)

// Kinds of completions. A completion's data holds kind, port, batch and index.
const (
	ofRead = iota + 1
	ofWrite
	ofPoll
	ofAlarm
	ofCancel
)

func tag(kind, port int, batch uint32, index int) uint64 {
	return uint64(kind)<<56 | uint64(port)<<48 | uint64(batch)<<16 | uint64(index)
}

// ring moves the frames of one or two directions with one io_uring, on one thread: all their reads and
// writes go to the kernel with one call. Only to an attached interface is a batch written by its exit.
type ring struct {
	outlet // of the direction to an attached interface, then the only direction
	life
	exit  exit // with which that writes, or nil
	ports []*ringPort
	turn  int // the port that hands out next

	failure   error     // an interface is lost: what is in flight ends, and nothing more is read
	armed     bool      // the alarm is being polled
	cancelled bool      // pending requests were cancelled, so that the ring can end
	heard     time.Time // when something was last completed after that
	stuck     bool      // nothing was for lastPatience
}

// newRing makes all that the ring needs.
func newRing(directions []*Direction, o Options) (r *ring, err error) {
	r = &ring{life: life{name: directions[0].from.name, busy: o.BusyPoll, alarm: -1}}
	r.life.end = r.end
	if r.uring, err = newUring(submissions, completions); err != nil {
		return nil, err
	}
	if err := r.setAlarm(); err != nil {
		return nil, r.end(err)
	}
	for i, d := range directions {
		p, err := newRingPort(d, i, r.uring, o.SingleReads)
		r.ports = append(r.ports, p)
		if err != nil {
			return nil, r.end(err)
		}
	}
	for i, d := range directions {
		if d.to.attached() {
			fd := uintptr(r.ports[i].writer.fd)
			r.direction, r.drain = d, r.write
			e, err := d.exit(o)
			if err != nil {
				return nil, r.end(err)
			}
			r.sink, r.exit = e, e
			r.reach = func(do func(fd uintptr)) error { do(fd); return nil }
		}
		d.from.holds(r)
		d.to.holds(r)
	}
	return r, nil
}

// next hands out the frames of a direction that has some, and calls the kernel when none has:
//
//  1. Bind the ring to this thread, the first time.
//  2. Hand out a batch from a port whose last batch is settled.
//  3. If all has ended, release everything and return why.
//  4. Otherwise write, read and wait in one call.
func (r *ring) next() (*Direction, [][]byte, error) {
	if err := r.open(); err != nil {
		return nil, nil, err
	}
	for {
		r.count.Add(1)
		for range r.ports {
			p := r.ports[r.turn]
			r.turn = (r.turn + 1) % len(r.ports)
			if len(p.writer.rest) > 0 {
				continue
			}
			if frames := p.reader.handOut(); len(frames) > 0 {
				if p.reader.cut != nil { // which counts what came
					p.direction.public.store(&p.direction.tally)
				}
				return p.direction, frames, nil
			}
		}
		if r.over() {
			return nil, nil, r.finish(r.reason())
		}
		if err := r.cycle(); err != nil {
			return nil, nil, r.finish(err)
		}
	}
}

// end releases descriptors and memory.
func (r *ring) end(why error) error {
	r.last = why
	r.dropAlarm()
	r.uring.close()
	if r.exit != nil {
		r.exit.release()
	}
	for _, p := range r.ports {
		p.close()
		p.direction.public.store(&p.direction.tally)
	}
	return why
}

// send queues the frames, which the next enter writes, or to an attached interface writes them.
func (r *ring) send(d *Direction, parcels []parcel) error {
	if r.last != nil {
		d.tally.HostDown += framesOf(parcels)
		return r.last
	}
	if r.sink != nil {
		r.fail(r.outlet.send(d, parcels))
		return nil
	}
	i := slices.IndexFunc(r.ports, func(p *ringPort) bool { return p.direction == d })
	w := &r.ports[i].writer
	if len(w.rest) > 0 {
		panic("tap: Send twice without Next in between")
	}
	w.rest = parcels
	return nil
}

// stop may be called from any goroutine.
func (r *ring) stop() {
	r.stopped.Store(true)
	r.wake()
}

// stopping reports whether nothing more is to be read.
func (r *ring) stopping() bool { return r.failure != nil || r.stopped.Load() }

func (r *ring) reason() error {
	if r.failure != nil {
		return r.failure
	}
	return ErrStopped
}

// over reports whether the ring has to end and nothing is in flight any more, or nothing that will ever
// complete.
func (r *ring) over() bool {
	if !r.stopping() {
		return false
	}
	over := true
	for _, p := range r.ports {
		if !p.end() {
			over = false
		}
	}
	return over || r.stuck
}

// cycle calls the kernel once.
//
//  1. Queue the writes that are due, then reads; if the ring has to end, cancel reads instead.
//  2. Enter. Writes end within the call, so it waits for them only. Without any it sleeps until a frame
//     comes, a pause ends, or it is time to check the interfaces.
//  3. Take what was completed, and publish the counts.
func (r *ring) cycle() error {
	open, limit := 0, heartbeat
	for _, p := range r.ports {
		w := &p.writer
		w.queue()
		open += w.open
		switch pausing := w.refusal.pause > 0; {
		case pausing && w.open == 0:
			limit = min(limit, w.refusal.left())
		case !pausing && !r.stopping():
			p.reader.feed.queue()
		}
	}
	r.watch()
	wait := max(open, 1)
	if open == 0 && r.spinning() {
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

// watch polls the alarm or, if the ring has to end, cancels everything that waits.
func (r *ring) watch() {
	switch {
	case !r.stopping() && !r.armed:
		r.armed = true
		s := r.uring.submit()
		s.op, s.fd, s.opFlags, s.data = opPollAdd, int32(r.alarm), unix.POLLIN, tag(ofAlarm, 0, 0, 0)
	case r.stopping() && !r.cancelled:
		r.cancelled, r.heard = true, time.Now()
		s := r.uring.submit()
		s.op, s.fd, s.opFlags, s.data = opAsyncCancel, -1, cancelAll|cancelAny, tag(ofCancel, 0, 0, 0)
	}
}

// complete takes the completions, and reports whether there were any.
func (r *ring) complete() (some bool) {
	for c, ok := r.uring.take(); ok; c, ok = r.uring.take() {
		some = true
		r.fail(r.answered(c))
	}
	if some && r.busy > 0 {
		r.awake = time.Now()
	}
	if some && r.cancelled {
		r.heard = time.Now()
	}
	for _, p := range r.ports {
		p.direction.public.store(&p.direction.tally)
	}
	return some
}

// answered gives a completion to its port.
func (r *ring) answered(c completion) error {
	kind, port, batch, index := int(c.data>>56), int(c.data>>48&0xff), uint32(c.data>>16), int(c.data&0xffff)
	if port < len(r.ports) {
		p := r.ports[port]
		switch kind {
		case ofRead:
			return p.reader.answered(c, index)
		case ofWrite:
			return p.writer.answered(c, batch, index)
		case ofPoll:
			return p.reader.woken()
		case ofAlarm:
			r.armed = false
			return nil
		case ofCancel:
			r.cancelled = unix.Errno(-c.result) != unix.ECANCELED
			return nil
		}
	}
	return fmt.Errorf("io_uring answers for an entry that it was not given: %#x", c.data)
}

// look notices interfaces that are gone; a deletion wakes the thread a moment before it shows, so a look on
// waking alone may be too early. It also gives up on a kernel that does not let the ring end.
func (r *ring) look() {
	r.stuck = r.cancelled && time.Since(r.heard) >= lastPatience
	for _, p := range r.ports {
		r.fail(p.direction.remain())
	}
}

// fail notes the first failure.
func (r *ring) fail(err error) {
	if r.failure == nil {
		r.failure = err
	}
}

// abandoned is memory that the kernel never gave back, kept so that it is not reused.
var abandoned struct {
	sync.Mutex
	all []any
}

func abandon(what ...any) {
	abandoned.Lock()
	defer abandoned.Unlock()
	abandoned.all = append(abandoned.all, what...)
}
