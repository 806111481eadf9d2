package cli

import (
	"encoding/json"
	"errors"
	"io"

	"github.com/spf13/cobra"

	"tapsec/internal/doctor"
)

func newDoctor() *cobra.Command {
	asJSON := false
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Say what this machine lacks for run and demo, and what to do",
		Long: `doctor looks at everything that the appliance needs or can stumble over, and
changes nothing. Lines marked NO keep run or demo from working; a note matters
only to what it speaks of. Exit code 0: both work; 1: one of them does not.`,
		Args: args(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return printDiagnosis(cmd.OutOrStdout(), doctor.Diagnose(), asJSON)
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one JSON object")
	return cmd
}

// printDiagnosis returns an error where run or demo cannot work.
func printDiagnosis(out io.Writer, d doctor.Diagnosis, asJSON bool) error {
	var err error
	if asJSON {
		err = printJSON(out, d)
	} else {
		err = d.WriteText(out)
	}
	if err != nil {
		return err
	}
	if !d.Run || !d.Demo {
		return exitError{exitMachine, errors.New("something is missing; what to do stands beside it")}
	}
	return nil
}

func printJSON(out io.Writer, v any) error {
	e := json.NewEncoder(out)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

func choose(yes bool, a, b string) string {
	if yes {
		return a
	}
	return b
}
