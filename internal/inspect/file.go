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

// File is a copy of the capture with the frames as they are delivered. A nil File writes
// nothing.
type File struct {
	path      string
	to        io.WriteCloser
	buffer    *bufio.Writer
	copy      *capture.Copy
	noTrailer bool
	frames    int
	asCame    bool   // frames are written as they came
	original  []byte // the present frame, if so
}

// NewFile begins a copy of what is read from frames from now on. With secrets, frames are
// written as they came, since those belong to such frames. The path is for messages.
func NewFile(path string, to io.WriteCloser, frames *capture.Reader, noTrailer bool, carried []capture.Secret) *File {
	f := &File{path: path, to: to, noTrailer: noTrailer, asCame: len(carried) > 0, buffer: bufio.NewWriterSize(to, 1<<16)}
	f.copy = frames.CopyTo(f.buffer)
	f.copy.WithSecrets(carried...)
	return f
}

// keep remembers a frame before it is opened, if it is to be written as it came.
func (f *File) keep(frame []byte) {
	if f != nil && f.asCame {
		f.original = append(f.original[:0], frame...)
	}
}

func (f *File) write(frame []byte, info capture.Info, comment string) error {
	switch {
	case f.asCame:
		frame = f.original
	case f.noTrailer:
		frame = withoutTrailer(frame)
	}
	if err := f.copy.Frame(frame, info, comment); err != nil {
		return f.failed(err)
	}
	f.frames++
	return nil
}

func (f *File) flush() {
	if f != nil {
		_ = f.buffer.Flush()
	}
}

// failed explains a failed write if the file's reader caused it.
func (f *File) failed(err error) error {
	if errors.Is(err, syscall.EPIPE) {
		return fmt.Errorf("-o %s: its reader left after at most %d frames", f.path, f.frames)
	}
	return err
}

// withoutTrailer is the frame as delivered with annotate: none, without the padding
// before the trailer.
func withoutTrailer(frame []byte) []byte {
	body, t, err := status.Split(frame)
	if err != nil {
		return frame
	}
	if t.Form == status.InPlace {
		return body[:t.WireLen]
	}
	if p, ok := account.OwnPacket(body); ok {
		return body[:p.Reach]
	}
	return body
}

// Close writes what is left and closes.
func (f *File) Close() error {
	if f == nil {
		return nil
	}
	err := errors.Join(f.copy.Close(), f.buffer.Flush())
	if f.copy.Close() != nil { // said already
		err = nil
	}
	if err != nil {
		err = f.failed(err)
	}
	return errors.Join(err, f.to.Close())
}
