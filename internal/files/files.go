// Package files opens what a command reads and writes, by name; "-" is a standard
// stream. No output overwrites an input, and a file with keys is readable by its
// owner alone.
package files

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"tapsec/internal/wrap"
)

// Open opens an input.
func Open(path string, stdin io.Reader) (io.ReadCloser, error) {
	if path == "-" {
		return input{stdin}, nil
	}
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	if info, err := file.Stat(); err == nil && info.IsDir() { // which a Read alone would tell
		return nil, errors.Join(&fs.PathError{Op: "open", Path: path, Err: syscall.EISDIR}, file.Close())
	}
	return file, nil
}

// MayCreate is the error for a path where no file can be: a folder, or in a folder that is not there.
func MayCreate(path string) error {
	info, err := os.Stat(path)
	switch {
	case err == nil && info.IsDir():
		return &fs.PathError{Op: "open", Path: path, Err: syscall.EISDIR}
	case err == nil:
		return nil
	}
	_, err = os.Stat(filepath.Dir(path))
	return err
}

// input is an input that stays open when it is closed.
type input struct{ io.Reader }

// Close does nothing.
func (input) Close() error { return nil }

// Read reads all of an input.
func Read(path string, stdin io.Reader) ([]byte, error) {
	in, err := Open(path, stdin)
	if err != nil {
		return nil, err
	}
	defer in.Close()
	var text bytes.Buffer
	text.Grow(sizeOf(in) + bytes.MinRead)
	_, err = text.ReadFrom(io.LimitReader(in, maxText+1))
	if err == nil && text.Len() > maxText {
		err = fmt.Errorf("expected at most %d MiB of text; keep what is about the SAs, and of the right time", maxText>>20)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", Name(path), err)
	}
	return text.Bytes(), nil
}

// sizeOf is the length of a regular file in bytes; 0 of anything else.
func sizeOf(in io.Reader) int {
	if info, ok := stat(in); ok && info.Mode().IsRegular() {
		return int(min(info.Size(), maxText))
	}
	return 0
}

// maxText is the longest text that is read whole, in bytes.
const maxText = 256 << 20

// Name is what messages call an input.
func Name(path string) string {
	if path == "-" {
		return "standard input"
	}
	return wrap.Printable(path)
}

// Stdout is standard output. It remembers the first failure, for commands that print
// many lines and check none.
type Stdout struct {
	io.Writer
	Err error
}

// Write writes.
func (s *Stdout) Write(b []byte) (int, error) {
	n, err := s.Writer.Write(b)
	s.Err = cmp.Or(s.Err, err)
	return n, err
}

// KeepOpen is a stream that stays open when it is closed.
type KeepOpen struct{ io.Writer }

// Close does nothing.
func (KeepOpen) Close() error { return nil }

// Of returns the file that a stream is, if it is one.
func Of(w any) (*os.File, bool) {
	if i, ok := w.(input); ok {
		w = i.Reader
	}
	if k, ok := w.(KeepOpen); ok {
		w = k.Writer
	}
	if s, ok := w.(*Stdout); ok {
		w = s.Writer
	}
	f, ok := w.(*os.File)
	return f, ok
}

// stat is what the system knows of a stream, if it is a file.
func stat(w any) (info os.FileInfo, ok bool) {
	file, ok := Of(w)
	if !ok {
		return nil, false
	}
	info, err := file.Stat()
	return info, err == nil
}

// errStream is of an output that has to be a file.
var errStream = errors.New("expected a file, found standard output (-)")

// WriteOwn makes a file that its owner alone can read. If the file exists, that is
// an error, and it stays as it is.
func WriteOwn(path string, text []byte) error {
	return MakeOwn(path, func(w io.Writer) error {
		_, err := w.Write(text)
		return err
	})
}

// MakeOwn is WriteOwn for what write writes. If that fails, no file stays.
func MakeOwn(path string, write func(io.Writer) error) error {
	if path == "-" {
		return errStream
	}
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("%s already exists; remove it, or name another file", path)
	}
	if err != nil {
		return err
	}
	if err = errors.Join(write(file), file.Close()); err != nil {
		os.Remove(path)
	}
	return err
}

// WarnExposed warns if keys are about to go to a file that others can read.
func WarnExposed(stderr, to io.Writer) {
	if info, ok := stat(to); ok && info.Mode().IsRegular() && info.Mode().Perm()&0o077 != 0 {
		fmt.Fprintf(stderr, "warning: others can read the file that these keys go to (mode %04o); -o makes a new one that they cannot\n", info.Mode().Perm())
	}
}

// MayWait reports whether a Read of an input may have to wait for somebody who writes it.
// A regular file never does.
func MayWait(in io.Reader) bool {
	if IsRegular(in) {
		return false
	}
	file, ok := Of(in)
	return !ok || !readable(file)
}

// IsRegular reports whether a stream is a regular file.
func IsRegular(w any) bool {
	info, ok := stat(w)
	return ok && info.Mode().IsRegular()
}
