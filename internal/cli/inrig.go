//go:build linux

package cli

import (
	"errors"

	"tapsec/internal/lab/rig"
)

// inRig runs this program again with args in a rig that ends with it. A noRig says
// that none is to be had, and that nothing was run.
func inRig(args ...string) error {
	if err := rig.NeedsTUN(); err != nil {
		return noRig{err}
	}
	code, err := rig.Reexec(args...)
	switch {
	case errors.Is(err, rig.ErrRefused):
		return noRig{err}
	case err == nil && code != exitOK:
		return exitError{code, errSaid}
	}
	return err
}

// noRig is why there is no rig, and what to do about it.
type noRig struct{ error }
