package nic

import (
	"sync/atomic"

	"tapsec/tap"
)

// worker drives one link. Counters are the link's plain locals; after each batch they are copied to
// where others may read them.
type worker struct {
	link   *tap.Link
	chains *chains
	queue  int
	public counters
}

// run moves batches until the link ends.
//
//  1. Receive a batch.
//  2. Lead it through the chain in force now.
//  3. Send it, which gives the slots back.
//  4. Publish the counts, also those of a failed send.
func (w *worker) run() error {
	for {
		frames, err := w.link.Receive()
		if err != nil {
			w.public.store(w.link.Tally())
			return err
		}
		err = w.link.Send(w.through(frames))
		w.public.store(w.link.Tally())
		if err != nil {
			return err
		}
	}
}

func (w *worker) through(frames [][]byte) [][]byte {
	for _, stage := range (*w.chains.Load())[w.queue] {
		frames = stage.Batch(frames)
	}
	return frames
}

// counters is a tally that others may read. The padding keeps one worker's writes off the cache
// lines of the next.
type counters struct {
	_                  [64]byte
	in, inBytes        atomic.Uint64
	out, outBytes      atomic.Uint64
	hostDown, tooLong  atomic.Uint64
	kept               atomic.Int64
	retries, oversized atomic.Uint64
	_                  [64]byte
}

func (c *counters) store(t tap.Tally) {
	c.in.Store(t.In)
	c.inBytes.Store(t.InBytes)
	c.out.Store(t.Out)
	c.outBytes.Store(t.OutBytes)
	c.hostDown.Store(t.HostDown)
	c.tooLong.Store(t.TooLong)
	c.kept.Store(t.Kept)
	c.retries.Store(t.Retries)
	c.oversized.Store(t.Oversize)
}

func sum(workers []*worker) tap.Tally {
	var t tap.Tally
	for _, w := range workers {
		c := &w.public
		t.In += c.in.Load()
		t.InBytes += c.inBytes.Load()
		t.Out += c.out.Load()
		t.OutBytes += c.outBytes.Load()
		t.HostDown += c.hostDown.Load()
		t.TooLong += c.tooLong.Load()
		t.Kept += c.kept.Load()
		t.Retries += c.retries.Load()
		t.Oversize += c.oversized.Load()
	}
	return t
}
