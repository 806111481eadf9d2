package tap

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// writeState is where a frame of a batch is.
type writeState uint8

const (
	waiting  writeState = iota // to be given to the kernel, for the first time or again
	underWay                   // with the kernel
	settled                    // written, or lost and counted
)

// writer is the write side of a ring port, to a TAP. A frame's slot in the batch moves like this:
//
//	           queue                     written, or lost and counted
//	waiting -----------> underWay --------------------------------------> settled
//	   ^                    |
//	   +--------------------+
//	    refused, or not tried
//
// The entries of a batch are linked: each waits for the one before it, and after a failed one no other is
// tried. Each gets one completion, which names batch and slot; completions come in any order and at any
// time. The next batch is queued after the last completion, and begins with what is still waiting, in
// order, so that no frame overtakes a refused one.
type writer struct {
	direction *Direction
	uring     *uring
	index     int // of the port
	fd        int

	rest   []parcel // what is not settled, in order, beginning with the batch
	batch  uint32   // number of the batch
	states [Batch]writeState
	queued int // parcels in the batch
	open   int // parcels of the batch without a completion

	stride  int        // how many to queue next
	errno   unix.Errno // why a frame of the batch was refused, if one was
	refusal refusal
	dead    bool // nothing can be written any more
}

// queue gives the kernel the next batch, unless one is under way or a pause has not ended.
func (w *writer) queue() {
	if len(w.rest) == 0 || w.open > 0 || w.refusal.left() > 0 {
		return
	}
	w.batch++
	w.queued = min(len(w.rest), w.stride)
	w.open = w.queued
	for i := range w.rest[:w.queued] {
		w.states[i] = underWay
		s := w.uring.submit()
		s.write(w.fd, &w.rest[i])
		s.data = tag(ofWrite, w.index, w.batch, i)
		if i < w.queued-1 {
			s.flags = sqeLink
		}
	}
}

// answered takes the completion of one entry. After an error nothing more can be written.
func (w *writer) answered(c completion, batch uint32, slot int) error {
	if batch != w.batch || slot >= w.queued || w.states[slot] != underWay {
		return fmt.Errorf("write to %s: io_uring answers for frame %d of batch %d, which is not under way", w.direction.to.name, slot, batch)
	}
	failure := w.move(slot, int(c.result))
	if w.open--; w.open == 0 {
		w.settle()
	}
	return failure
}

// move takes a slot from underWay to where the kernel's answer puts it.
func (w *writer) move(slot, result int) error {
	p, errno := &w.rest[slot], unix.Errno(-result)
	switch {
	case result == p.length:
		w.states[slot] = settled
		w.direction.wrote(p)
		return nil
	case result >= 0:
		w.states[slot] = settled
		return w.die(p, fmt.Errorf("write to %s: the kernel took %d bytes of a frame that has %d", w.direction.to.name, result, p.length))
	case errno == unix.ECANCELED:
		w.states[slot] = waiting
		return nil
	case refused(errno), errno == unix.EINTR:
		w.states[slot], w.errno = waiting, errno
		return nil
	}
	w.states[slot] = settled
	if w.direction.lose(p, errno) {
		return nil
	}
	return w.die(p, w.direction.to.failed("write to", errno))
}

// die counts a parcel whose failure ends all writing.
func (w *writer) die(p *parcel, why error) error {
	w.direction.tally.HostDown += uint64(len(p.frames))
	w.dead = true
	return why
}

// left is how many frames are not settled.
func (w *writer) left() int {
	left := int(framesOf(w.rest))
	for i, s := range w.states[:w.queued] {
		if s == settled {
			left -= len(w.rest[i].frames)
		}
	}
	return left
}

// settle ends a batch after its last completion.
//
//  1. What is waiting goes to the front of the rest, in order.
//  2. If all is settled the next batch may be longer; else it is one frame, since that may fail too.
//  3. If a frame was refused, or none was tried, there is a pause.
func (w *writer) settle() {
	done := w.queued
	for i := w.queued - 1; i >= 0; i-- {
		if w.states[i] == waiting {
			done--
			w.rest[done] = w.rest[i]
		}
	}
	left := w.queued - done
	w.rest, w.queued = w.rest[done:], 0
	if done > 0 {
		w.refusal.over()
	}
	if left == 0 {
		w.stride = min(2*w.stride, Batch)
		return
	}
	w.stride = 1
	if errno := w.errno; errno != 0 || done == 0 {
		w.errno = 0
		w.direction.tally.Retries++
		w.refusal.again(errno, w.direction.to, w.fd)
	}
}
