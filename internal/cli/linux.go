//go:build linux

package cli

import (
	"errors"

	"github.com/spf13/cobra"

	"tapsec/appliance"
	"tapsec/tap"
)

// ofThisSystem are the commands that need Linux: those with interfaces.
func ofThisSystem() []*cobra.Command {
	return []*cobra.Command{newBench(), newConformance(), newDemo(), newDoctor(), newRig(), newRun(), newSend(), newShadow(), newTop(), newTransport()}
}

// exitOfAppliance is the exit code for an error of an appliance or of the machine.
func exitOfAppliance(err error) int {
	var input appliance.InputError
	switch {
	case errors.As(err, &input):
		return exitInput
	case errors.Is(err, tap.ErrGone):
		return exitGone
	}
	return exitMachine
}
