package tap

import "golang.org/x/sys/unix"

// queueReads has frames read into the slots that are free, by one entry that goes on for as long as
// there are any, or by a batch of them where the kernel has no such entry.
func (w *way) queueReads() {
	switch {
	case w.reads > 0 || w.polling || w.pause > 0:
	case w.single && w.dry:
		w.dry, w.polling = false, true
		s := w.uring.submit()
		s.op, s.fd, s.opFlags, s.data = opPollAdd, int32(w.in), unix.POLLIN, tag(ofPoll, w.index, 0)
	case w.single:
		w.queueSingles()
	case w.filled+len(w.lent) < slotCount:
		s := w.uring.submit()
		s.op, s.fd, s.data = opReadMultishot, int32(w.in), tag(ofRead, w.index, 0)
		s.flags, s.buffers = sqeBufferSelect, uint16(w.index)
		w.reads = 1
	}
}

// queueSingles submits more reads the more frames came last time, for each that finds none costs too.
func (w *way) queueSingles() {
	for w.reads < w.burst && len(w.free) > 0 {
		slot := w.free[len(w.free)-1]
		w.free = w.free[:len(w.free)-1]
		room := w.slots[slot][head:]
		s := w.uring.submit()
		s.op, s.fd, s.opFlags, s.data = opRead, int32(w.in), unix.RWF_NOWAIT, tag(ofRead, w.index, int(slot))
		s.address, s.length = addressOf(room), uint32(len(room))
		w.reads++
	}
	w.burst = min(2*w.burst, Batch)
}

// haveRead takes the completion of a read.
func (w *way) haveRead(c completion, index int) error {
	if w.single || c.flags&cqeMore == 0 {
		w.reads--
	}
	if c.result < 0 {
		return w.haveNotRead(unix.Errno(-c.result), index)
	}
	slot, n, l := uint16(index), int(c.result), w.link
	if !w.single {
		slot = uint16(c.flags >> cqeBufferBit)
	}
	if n > l.room {
		l.tally.Oversize++
		w.giveBack(slot)
		return nil
	}
	l.tally.In++
	l.tally.InBytes += uint64(n)
	w.frames[slot] = w.slots[slot][head : head+n]
	w.line[(w.first+w.filled)%slotCount] = slot
	w.filled++
	return nil
}

func (w *way) haveNotRead(errno unix.Errno, index int) error {
	if w.single {
		w.giveBack(uint16(index))
	}
	switch errno {
	case unix.EAGAIN:
		w.dry, w.burst = true, leastBurst
	case unix.ENOBUFS, unix.ECANCELED, unix.EINTR: // no free slot; by cancelReads
	default:
		return w.link.from.failed("read from", errno)
	}
	return nil
}
