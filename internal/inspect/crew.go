package inspect

import (
	"cmp"
	"io"
	"sync"
	"sync/atomic"

	"tapsec/capture"
)

const (
	batchFrames = 256     // with fewer, workers wait for each other as long as they work
	batchBytes  = 1 << 19 // with which a batch is full
	mostAside   = 1 << 20 // bytes between frames that are kept until their turn
)

// crew is the workers of one capture. Each takes the next batch of frames and leads it through
// all that is to be done. Reading, counting and writing are in the order of the capture, one
// batch after the other; between them a worker judges and tells beside the others.
//
//	worker 1   read 1 | judge 1 | count 1 | tell 1 | write 1 | read 3 ...
//	worker 2            read 2 | judge 2  | count 2 | tell 2 | write 2 ...
//
// So the frames of an SA need not go to one worker, which nobody could choose for what a
// tunnel hides. What frames change for those behind them is left to counting: ESN marks are
// confirmed there (pipeline.Assumed), windows move and sums grow. When SAs change at a time of
// the capture, and before the capture is waited for, everything read so far is finished.
type crew struct {
	i      *Inspector
	frames *capture.Reader
	stop   func() error
	done   sync.WaitGroup

	reading sync.Mutex // guards the following
	reader  *worker    // who reads
	hired   int        // workers
	next    int        // number of the next batch
	ordinal uint64     // of the next frame
	over    error      // why there is nothing more to read

	counting, writing turn
	failed            error       // in writing, of which it is the turn that guards
	broken            atomic.Bool // the same
}

// work leads all of the capture through.
func (c *crew) work() error {
	c.ordinal = 1
	c.counting.init()
	c.writing.init()
	c.frames.BeforeWait(func() {
		c.reader.settle()
		c.i.flush()
	})
	c.i.file.between(c.aside)
	c.hire()
	c.done.Wait()
	c.frames.BeforeWait(nil)
	c.i.file.between(nil)
	if c.over == io.EOF {
		c.over = nil
	}
	return cmp.Or(c.failed, c.over)
}

// hire starts a worker, if one is left.
func (c *crew) hire() {
	if c.hired == len(c.i.pipes) {
		return
	}
	w := &worker{crew: c, i: c.i, pipe: c.i.pipes[c.hired], frames: make([]frame, c.i.batch)}
	c.hired++
	c.done.Go(w.work)
}

// aside takes bytes that stand between frames in the File.
func (c *crew) aside(b []byte) {
	w := c.reader
	if len(w.aside)+len(b) > mostAside {
		w.settle()
	}
	w.aside = append(w.aside, b...)
}

// turn lets batches pass one after the other.
type turn struct {
	mu   sync.Mutex
	come sync.Cond
	next int // batch
}

func (t *turn) init() { t.come.L = &t.mu }

// wait waits for a batch's turn.
func (t *turn) wait(batch int) {
	t.mu.Lock()
	for t.next != batch {
		t.come.Wait()
	}
	t.mu.Unlock()
}

// pass ends the turn.
func (t *turn) pass() {
	t.mu.Lock()
	t.next++
	t.mu.Unlock()
	t.come.Broadcast()
}
