package inspect

import (
	"fmt"
	"io"
	"sync/atomic"
	"time"

	"tapsec/internal/files"
)

// Progress is a capture that knows how far it has been read. Any goroutine may
// ask.
type Progress struct {
	from  io.Reader
	size  int64 // bytes; 0 if unknown, as for a pipe
	began time.Time
	read  atomic.Int64
}

// NewProgress reads a capture from a file or a pipe.
func NewProgress(from io.Reader) *Progress {
	p := &Progress{from: from, began: time.Now()}
	if f, ok := files.Of(from); ok {
		if st, err := f.Stat(); err == nil && st.Mode().IsRegular() {
			p.size = st.Size()
		}
	}
	return p
}

// Read is io.Reader.
func (p *Progress) Read(b []byte) (int, error) {
	n, err := p.from.Read(b)
	p.read.Add(int64(n))
	return n, err
}

// MayWait reports whether the next Read may wait for whoever writes the capture
// (capture.Reader.BeforeWait).
func (p *Progress) MayWait() bool { return p.size == 0 && files.MayWait(p.from) }

// Line says how many frames were read, how many per second and, if it can be told,
// how long the rest takes at that rate.
func (p *Progress) Line(frames int64, now time.Time) string {
	took := now.Sub(p.began).Seconds()
	line := fmt.Sprintf("%d frames", frames)
	if took <= 0 || frames == 0 {
		return line
	}
	line += fmt.Sprintf(", %.0f a second", float64(frames)/took)
	if read := p.read.Load(); read > 0 && read <= p.size {
		line += fmt.Sprintf(", %.0f s left", took*float64(p.size-read)/float64(read))
	}
	return line
}
