package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"tapsec/internal/lab/rig"
)

// rigReport is a rig as status shows it.
type rigReport struct {
	*rig.Standing
	Up       bool            `json:"up"`
	Dir      string          `json:"dir"`
	Log      string          `json:"log"`
	Programs []programReport `json:"programs"`
}

// programReport is a program of a rig as status shows it.
type programReport struct {
	rig.Program
	Alive bool `json:"alive"`
}

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
func rigReports(names []string) ([]rigReport, error) {
	all, err := rig.All()
	if len(names) > 0 {
		var one *rig.Standing
		one, err = rig.Find(names[0])
		all = []*rig.Standing{one}
	}
	if err != nil {
		return nil, orWhichRig(err)
	}
	reports := []rigReport{}
	for _, r := range all {
		report := rigReport{Standing: r, Up: r.Up(), Dir: r.Dir(), Log: r.Log()}
		for _, p := range r.Programs {
			report.Programs = append(report.Programs, programReport{p, p.Process.Alive()})
		}
		reports = append(reports, report)
	}
	return reports, nil
}

// rigStatus prints the reports. It returns an error where not everything is up.
func rigStatus(out io.Writer, reports []rigReport, asJSON bool) error {
	if asJSON {
		e := json.NewEncoder(out)
		e.SetIndent("", "  ")
		if err := e.Encode(reports); err != nil {
			return err
		}
	}
	var ended []string
	for _, r := range reports {
		if !asJSON {
			if err := r.print(out); err != nil {
				return err
			}
		}
		if !r.whole() {
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

// whole tells whether supervisor and programs all live.
func (r rigReport) whole() bool {
	for _, p := range r.Programs {
		if !p.Alive {
			return false
		}
	}
	return r.Up
}

func (r rigReport) print(out io.Writer) error {
	state := fmt.Sprintf("up since %s", r.Since.Format(time.DateTime))
	if !r.Up {
		state = fmt.Sprintf("DIED; it was put up at %s", r.Since.Format(time.DateTime))
	}
	fmt.Fprintf(out, "rig %s: %s%s\n", r.Name, state, choose(r.Rootless, ", without root", ""))
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	for _, h := range r.Hosts {
		fmt.Fprintf(w, "  host %s\t%s\n", h.Name, hostLine(h))
	}
	fmt.Fprintf(w, "  supervisor\tpid %d\t%s\n", r.Supervisor.PID, choose(r.Up, "runs", "DIED"))
	for _, p := range r.Programs {
		fmt.Fprintf(w, "  %s\tpid %d\t%s\n", p.Name, p.Process.PID, p.state())
	}
	fmt.Fprintf(w, "  configuration\t%s\n  log\t%s\n", r.Config, r.Log)
	return w.Flush()
}

func (p programReport) state() string {
	switch {
	case p.Alive:
		return "runs"
	case p.Ended == "":
		return "ENDED"
	}
	return "ENDED: " + p.Ended
}
