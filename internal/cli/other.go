//go:build !linux

package cli

import (
	"tapsec/internal/exit"

	"github.com/spf13/cobra"
)

// ofThisSystem are none: elsewhere captures and keys are read, and running appliances asked.
func ofThisSystem() []*cobra.Command { return nil }

func exitOfAppliance(error) int { return exit.Machine }

// completeNamespaces has nothing to offer.
func completeNamespaces(*cobra.Command, []string, string) ([]cobra.Completion, cobra.ShellCompDirective) {
	return nil, cobra.ShellCompDirectiveNoFileComp
}
