//go:build linux

package cli

import (
	"errors"
	"os"

	"github.com/spf13/cobra"

	"tapsec/appliance"
	"tapsec/internal/exit"
	"tapsec/internal/netns"
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
		return exit.Input
	case errors.Is(err, tap.ErrGone):
		return exit.Gone
	}
	return exit.Machine
}

// completeNamespaces completes the name of a network namespace.
func completeNamespaces(*cobra.Command, []string, string) (names []cobra.Completion, _ cobra.ShellCompDirective) {
	there, _ := os.ReadDir(netns.Names) // where there is none, there is no folder either
	for _, f := range there {
		names = append(names, f.Name())
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}
