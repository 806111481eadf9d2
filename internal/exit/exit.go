// Package exit has the program's exit codes, and marks errors with one.
package exit

import "errors"

// The codes. What a running appliance answers has some more (internal/cli).
const (
	OK       = 0 // done, whatever the frames' verdicts
	Machine  = 1 // the machine lacks something, or failed at work
	Input    = 2 // a flag, a configuration or a capture is wrong
	Gone     = 3 // an interface was deleted under the appliance
	Disagree = 4 // a frame is not as the contract, --expect or the kernel says
)

type marked struct {
	code int
	error
}

func (m marked) Unwrap() error { return m.error }

// Mark returns err with an exit code; nil stays nil.
func Mark(code int, err error) error {
	if err == nil {
		return nil
	}
	return marked{code, err}
}

// Code returns the code that an error is marked with, if it is.
func Code(err error) (code int, ok bool) {
	var m marked
	ok = errors.As(err, &m)
	return m.code, ok
}
