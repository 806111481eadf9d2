package inspect

import (
	"fmt"
	"io"

	"tapsec/internal/account"
	"tapsec/pipeline"
	"tapsec/status"
)

// worker has one batch at a time.
type worker struct {
	crew *crew
	i    *Inspector
	pipe *pipeline.Pipeline

	batch  int    // its number
	first  uint64 // ordinal of its first frame
	frames []frame
	n      int    // frames in it
	bytes  int    // of these
	aside  []byte // what stands between them in the File

	text []byte // what is told of them
	file []byte // what the File gets
	one  []byte // scratch: the words of a frame
}

// work leads batch after batch through.
func (w *worker) work() {
	for more := true; more; {
		more = w.read()
		w.finish()
	}
}

// read fills a new batch, and reports whether there may be more. Only then another worker is of
// use.
func (w *worker) read() (more bool) {
	c := w.crew
	c.reading.Lock()
	defer c.reading.Unlock()
	c.reader = w
	w.begin()
	for c.over == nil && !c.broken.Load() && w.n < len(w.frames) && w.bytes < batchBytes {
		c.over = w.readFrame()
	}
	if more = c.over == nil && !c.broken.Load(); more {
		c.hire()
	}
	return more
}

// begin begins a batch. The worker is the one that reads.
func (w *worker) begin() {
	w.batch, w.first = w.crew.next, w.crew.ordinal
	w.crew.next++
	w.n, w.bytes, w.aside = 0, 0, w.aside[:0]
}

// settle finishes what has been read so far, by whomever, and begins another batch. The worker
// is the one that reads.
func (w *worker) settle() {
	w.finish()
	w.begin()
}

// readFrame reads a frame into the batch, before which the batch may be settled.
func (w *worker) readFrame() error {
	c, at := w.crew, w.n
	b, info, err := c.frames.NextTo(&w.frames[at].buffer)
	switch {
	case err == io.EOF:
		return err
	case err != nil:
		return fmt.Errorf("%w: %w", ErrCapture, err)
	}
	if err := c.stop(); err != nil {
		return err
	}
	if !w.i.opt.Shown && w.i.nic.Over(info.Time) {
		w.settle()
		if err := w.i.enter(info.Time); err != nil {
			return err
		}
	}
	if w.n != at {
		w.frames[w.n], w.frames[at] = w.frames[at], w.frames[w.n]
	}
	f := &w.frames[w.n]
	f.bytes, f.Info, f.behind = b, info, len(w.aside)
	w.n++
	w.bytes += len(b)
	c.ordinal++
	return nil
}

// finish leads the batch through everything behind reading. What the batches before it have to
// write is written then.
func (w *worker) finish() {
	c := w.crew
	w.judge()
	c.counting.wait(w.batch)
	w.count()
	c.counting.pass()
	w.tell()
	c.writing.wait(w.batch)
	if c.failed == nil {
		c.failed = w.write()
		c.broken.Store(c.failed != nil)
	}
	c.writing.pass()
}

// judge makes the NIC process the batch, which gives its frames trailers.
func (w *worker) judge() {
	alone, ordered := len(w.i.pipes) == 1, w.i.nic.Ordered()
	keep := !alone && ordered || w.i.file.keeps()
	for n := range w.n {
		f := &w.frames[n]
		f.src, f.dst = account.Ends(f.bytes)
		if keep {
			f.original = append(f.original[:0], f.bytes...)
		}
		if !w.i.opt.Shown {
			_, _, err := status.Split(f.bytes)
			f.annotated = err == nil
			w.place(n)
			if alone {
				f.bytes = w.pipe.Process(f.bytes)
			} else {
				f.bytes = w.pipe.Ahead(f.bytes, &f.assumed)
			}
		}
		f.read()
	}
}

// place tells the pipeline which frame comes.
func (w *worker) place(n int) {
	w.pipe.Next(w.first + uint64(n))
	w.pipe.At(w.frames[n].Time)
}

// count puts the batch into the sums, in its turn.
func (w *worker) count() {
	i, counted := w.i, int64(0)
	for n := range w.n {
		f := &w.frames[n]
		if !f.assumed.Confirm() {
			w.place(n)
			f.bytes = w.pipe.Process(append(f.bytes[:0], f.original...))
			f.read()
		}
		if f.annotated {
			i.sum.Annotated++
		}
		if f.told = false; f.leftOut {
			i.sum.LeftOut++
			continue
		}
		counted++
		i.count(f)
	}
	i.total.Add(counted)
}

// tell says what became of the batch, and what the File gets of it.
func (w *worker) tell() {
	i, told := w.i, 0
	w.text, w.file = w.text[:0], w.file[:0]
	for n := range w.n {
		f := &w.frames[n]
		if !f.told {
			continue
		}
		switch {
		case i.opt.Quiet:
		case i.opt.JSON:
			w.text = f.appendJSON(w.text)
		default:
			w.text = w.appendLine(w.text, f)
		}
		if i.file != nil {
			w.one = f.appendComment(w.one[:0])
			w.file = append(w.file, w.aside[told:f.behind]...)
			w.file, told = i.file.append(w.file, f, string(w.one)), f.behind
		}
	}
	w.file = append(w.file, w.aside[told:]...)
}

// write writes what the batch tells, in its turn.
func (w *worker) write() error {
	if _, err := w.i.out.Write(w.text); err != nil {
		return err
	}
	return w.i.file.write(w)
}
