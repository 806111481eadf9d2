//go:build linux

package cli

import (
	"errors"

	"github.com/spf13/cobra"

	"tapsec/internal/doctor"
	"tapsec/internal/exit"
)

func newDoctor() *cobra.Command {
	asJSON := false
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Say what this machine lacks for run and demo, and what to do",
		Long: `doctor looks at everything that the appliance needs or can stumble over, and
changes nothing. Lines marked NO keep run or demo from working; a note matters
only for what it mentions. Exit code 0: both work; 1: one of them does not.`,
		Args: args(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			d := doctor.Diagnose()
			return errors.Join(show(cmd.OutOrStdout(), asJSON, d), diagnosed(d))
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one JSON object")
	return cmd
}

// diagnosed returns an error where run or demo cannot work.
func diagnosed(d doctor.Diagnosis) error {
	if d.Run && d.Demo {
		return nil
	}
	return exit.Mark(exit.Machine, errors.New("something is missing; the lines above say what to do"))
}
