package inspect

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"syscall"

	"tapsec/capture"
	"tapsec/internal/account"
	"tapsec/status"
)

// File is a copy of the capture with the frames as they are delivered. A nil File
// writes nothing.
type File struct {
	path      string
	to        io.WriteCloser
	buffer    *bufio.Writer
	copy      *capture.Copy
	aside     func([]byte) // takes what stands between frames; nil: the buffer does
	noTrailer bool
	frames    int
	asCame    bool // frames are written as they came
	broken    bool // a write has failed, which was said
}

// NewFile begins a copy of what is read from frames from now on. With secrets, which are for
// frames as they came, frames are written so. The path is for messages.
func NewFile(path string, to io.WriteCloser, frames *capture.Reader, noTrailer bool, carried []capture.Secret) *File {
	f := &File{path: path, to: to, noTrailer: noTrailer, asCame: len(carried) > 0, buffer: bufio.NewWriterSize(to, 1<<16)}
	f.copy = frames.CopyTo(between{f})
	f.copy.WithSecrets(carried...)
	return f
}

// between is where the Copy writes what stands between frames.
type between struct{ *File }

func (b between) Write(text []byte) (int, error) {
	if b.aside == nil {
		return b.buffer.Write(text)
	}
	b.aside(text)
	return len(text), nil
}

// between sets who takes what stands between frames.
func (f *File) between(aside func([]byte)) {
	if f != nil {
		f.aside = aside
	}
}

// keeps reports whether frames are written as they came.
func (f *File) keeps() bool { return f != nil && f.asCame }

// append appends the block of a frame.
func (f *File) append(to []byte, frame *frame, comment string) []byte {
	b := frame.bytes
	switch {
	case f.asCame:
		b = frame.original
	case f.noTrailer:
		b = frame.withoutTrailer()
	}
	return capture.AppendFrame(to, b, frame.Info, comment)
}

// write writes what a batch gives to the file.
func (f *File) write(w *worker) error {
	if f == nil {
		return nil
	}
	if _, err := f.buffer.Write(w.file); err != nil {
		f.broken = true
		return f.failed(err)
	}
	for n := range w.n {
		if w.frames[n].told {
			f.frames++
		}
	}
	return nil
}

func (f *File) flush() {
	if f != nil {
		_ = f.buffer.Flush()
	}
}

// failed explains a failed write. The file's reader may be the cause.
func (f *File) failed(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, syscall.EPIPE):
		return fmt.Errorf("-o %s: its reader left after at most %d frames", f.path, f.frames)
	}
	return fmt.Errorf("writing pcapng: %w", err)
}

// withoutTrailer is the frame as it is delivered with annotate: none, without the padding
// before the trailer.
func (f *frame) withoutTrailer() []byte {
	if f.trailer.Form == status.InPlace {
		return f.body[:f.trailer.WireLen]
	}
	if p, ok := account.OwnPacket(f.body); ok {
		return f.body[:p.Reach]
	}
	return f.body
}

// Close writes what is left and closes.
func (f *File) Close() error {
	if f == nil {
		return nil
	}
	var err error
	if !f.broken {
		err = f.failed(f.buffer.Flush())
	}
	return errors.Join(err, f.to.Close())
}
