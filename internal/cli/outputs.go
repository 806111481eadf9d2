package cli

import (
	"errors"
	"fmt"
	"io"
	"os"
)

// inputs are the files that a command reads. None of them may be what it writes,
// whatever name, link or descriptor leads there.
type inputs struct {
	paths []string // "" is none, - is stdin
	stdin io.Reader
}

// create opens the file that a flag names and empties it, unless it is an input.
// That is asked of the open file, so that what was asked is what is written.
func (in inputs) create(flag, path string, mode os.FileMode) (*os.File, error) {
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

// refusePath is refuse for a path that is to be written to later, if anything is
// there.
func (in inputs) refusePath(flag, path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return nil
	}
	return in.refuse(flag+" "+path, info)
}

// refuseOpen is refuse for what is open already, if it is a file.
func (in inputs) refuseOpen(flag string, w io.Writer) error {
	file, ok := unwrap(w).(*os.File)
	if !ok {
		return nil
	}
	info, err := file.Stat()
	if err != nil {
		return nil
	}
	return in.refuse(flag, info)
}

// refuse is the error for an output that is an input. What is no regular file is
// read once, and none.
func (in inputs) refuse(output string, info os.FileInfo) error {
	if !info.Mode().IsRegular() {
		return nil
	}
	for _, path := range in.paths {
		if other, err := in.stat(path); err == nil && os.SameFile(info, other) {
			return fmt.Errorf("%s: expected a file of its own, found the input %s; name another file", output, inputName(path))
		}
	}
	return nil
}

func (in inputs) stat(path string) (os.FileInfo, error) {
	if path != "-" {
		return os.Stat(path)
	}
	if file, ok := in.stdin.(*os.File); ok {
		return file.Stat()
	}
	return nil, os.ErrInvalid
}
