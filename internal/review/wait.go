package review

import (
	"errors"
	"io"

	"tapsec/internal/inspect"
)

var errInterrupted = errors.New("interrupted")

// waiting is a capture for which nobody waits any longer once done is closed.
type waiting struct {
	*inspect.Progress
	done <-chan struct{}
	buf  []byte // of the Read that may wait
}

// Read is io.Reader. The error is errInterrupted if it waited until done.
func (w *waiting) Read(b []byte) (int, error) {
	if !w.MayWait() {
		return w.Progress.Read(b)
	}
	type result struct {
		n   int
		err error
	}
	if len(w.buf) < len(b) {
		w.buf = make([]byte, len(b))
	}
	own, read := w.buf[:len(b)], make(chan result, 1)
	go func() {
		n, err := w.Progress.Read(own)
		read <- result{n, err}
	}()
	select {
	case r := <-read:
		return copy(b, own[:r.n]), r.err
	case <-w.done:
		return 0, errInterrupted
	}
}

// stop returns an error once nobody wants more frames.
func (w *waiting) stop() error {
	select {
	case <-w.done:
		return errInterrupted
	default:
		return nil
	}
}

var _ io.Reader = (*waiting)(nil)
