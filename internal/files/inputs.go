package files

import (
	"errors"
	"fmt"
	"io"
	"os"
)

// Inputs are the files that a command reads. It must not write to any of them,
// whatever name, link or descriptor leads there.
type Inputs struct {
	Paths []string // "" is none
	Stdin io.Reader
}

// Create opens the file that a flag names and empties it, unless it is an input.
// It checks the open file, so that the file checked is the file written.
func (in Inputs) Create(flag, path string, mode os.FileMode) (*os.File, error) {
	if path == "-" {
		return nil, fmt.Errorf("%s: %w", flag, errStream)
	}
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE, mode)
	if err != nil {
		return nil, err
	}
	info, err := file.Stat()
	if err == nil {
		err = in.refuse(flag+" "+path, info)
	}
	if err == nil && info.Mode().IsRegular() {
		err = file.Truncate(0)
	}
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return file, nil
}

// Refuse is the error for a path that is to be written to later, if an input is
// there.
func (in Inputs) Refuse(flag, path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return nil
	}
	return in.refuse(flag+" "+path, info)
}

// RefuseOpen is Refuse for a stream that is already open, if it is a file.
func (in Inputs) RefuseOpen(flag string, w io.Writer) error {
	if info, ok := stat(w); ok {
		return in.refuse(flag, info)
	}
	return nil
}

// refuse is the error for an output that is an input. Only a regular file can be
// both.
func (in Inputs) refuse(output string, info os.FileInfo) error {
	if !info.Mode().IsRegular() {
		return nil
	}
	for _, path := range in.Paths {
		if other, err := in.stat(path); err == nil && os.SameFile(info, other) {
			return fmt.Errorf("%s: expected a file of its own, found %s, which is in use here; name another file", output, Name(path))
		}
	}
	return nil
}

func (in Inputs) stat(path string) (os.FileInfo, error) {
	if path != "-" {
		return os.Stat(path)
	}
	if info, ok := stat(in.Stdin); ok {
		return info, nil
	}
	return nil, os.ErrInvalid
}
