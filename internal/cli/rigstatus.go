package cli

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"tapsec/internal/lab/rig"
)

func newRigStatus() *cobra.Command {
	asJSON := false
	cmd := &cobra.Command{
		Use:   "status [NAME]",
		Short: "Say which rigs are up and how they are",
		Long: `status shows each rig, or the one named: its hosts, its programs, and what has
ended. Exit code 0: all of it is up; 1: nothing is, or something has ended.`,
		Args:              oneRig,
		ValidArgsFunction: completeRigs,
		RunE: func(cmd *cobra.Command, given []string) error {
			reports, err := rigReports(given)
			if err != nil {
				return err
			}
			return rigStatus(cmd.OutOrStdout(), reports, asJSON)
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one JSON array, an object per rig")
	return cmd
}

// rigReports looks at the rig named, or at all.
func rigReports(names []string) ([]rig.Report, error) {
	all, err := rig.All()
	if len(names) > 0 {
		var one *rig.Standing
		one, err = rig.Find(names[0])
		all = []*rig.Standing{one}
	}
	if err != nil {
		return nil, orWhichRig(err)
	}
	reports := []rig.Report{}
	for _, r := range all {
		reports = append(reports, r.Report())
	}
	return reports, nil
}

// rigStatus prints the reports. It returns an error where not everything is up.
func rigStatus(out io.Writer, reports []rig.Report, asJSON bool) error {
	if asJSON {
		if err := printJSON(out, reports); err != nil {
			return err
		}
	}
	var ended []string
	for _, r := range reports {
		if !asJSON {
			if err := r.WriteText(out); err != nil {
				return err
			}
		}
		if !r.Whole() {
			ended = append(ended, r.Name)
		}
	}
	switch {
	case len(reports) == 0:
		return errors.New("no rig is up; tapsec rig up puts one up")
	case len(ended) > 0:
		return fmt.Errorf("not all of rig %s runs; tapsec rig down clears it away", strings.Join(ended, ", "))
	}
	return nil
}
