// Package cli is the command line: flags fill an options struct, a run function
// does the work with what the other packages offer. Nothing but wiring, and the
// sentences that people read.
package cli

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"tapsec/configs"
	"tapsec/tap"
)

// Exit codes of the program.
const (
	exitOK       = 0 // done, whatever the frames' verdicts
	exitMachine  = 1 // the machine lacks something, or failed at work
	exitInput    = 2 // a flag, a configuration or a capture is wrong
	exitGone     = 3 // an interface was deleted under the appliance
	exitDisagree = 4 // demo: some frame was not annotated as the contract says
)

// exitError is an error with the exit code that belongs to it.
type exitError struct {
	code int
	error
}

func (e exitError) Unwrap() error { return e.error }

// inputError marks an error as one that the user can mend in what they gave.
func inputError(err error) error { return exitError{exitInput, err} }

// Main runs the command line and returns the exit code.
func Main() int {
	root := newRoot()
	err := root.ExecuteContext(context.Background())
	if err != nil {
		fmt.Fprintln(os.Stderr, "tapsec:", err)
	}
	return exitCode(err)
}

func exitCode(err error) int {
	var coded exitError
	var mistakes configs.Errors
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &coded):
		return coded.code
	case errors.As(err, &mistakes):
		return exitInput
	case errors.Is(err, tap.ErrGone):
		return exitGone
	}
	return exitMachine
}

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:   "tapsec",
		Short: "A software NIC with IPsec receive offload, on TAP interfaces",
		Long: `tapsec checks and decrypts AH and ESP on received frames as a NIC with IPsec
task offload does, and hands on every frame with its verdict behind it.

Exit codes: 0 done, 1 the machine lacks something or failed, 2 a flag, a
configuration or a capture is wrong, 3 an interface was deleted under the
appliance, 4 a frame of the demo was not annotated as expected.`,
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return inputError(err) })
	root.AddCommand(newDemo(), newDoctor(), newMan(), newReplay(), newRun(), newValidate(), newVersion())
	return root
}

// args wraps a check of positional arguments, so that its error counts as the
// user's.
func args(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(cmd *cobra.Command, given []string) error {
		if err := check(cmd, given); err != nil {
			return inputError(fmt.Errorf("%w; see %s --help", err, cmd.CommandPath()))
		}
		return nil
	}
}
