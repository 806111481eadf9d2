//go:build linux

package cli

import (
	"errors"

	"github.com/spf13/cobra"

	"tapsec/internal/lab/rig"
)

func newRigStatus() *cobra.Command {
	asJSON := false
	cmd := &cobra.Command{
		Use:   "status [NAME]",
		Short: "Say which rigs are up and how they are",
		Long: `status shows each rig, or the one named: its hosts, its programs, and what has
ended. Exit code 0: everything is up; 1: nothing is, or something has ended.`,
		Args:              oneRig,
		ValidArgsFunction: completeRigs,
		RunE: func(cmd *cobra.Command, given []string) error {
			reports, err := rig.Look(given...)
			if err != nil {
				return err
			}
			return errors.Join(show(cmd.OutOrStdout(), asJSON, reports), reports.Whole())
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one JSON array, an object per rig")
	return cmd
}
