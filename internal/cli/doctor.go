package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"tapsec/internal/lab/rig"
	"tapsec/tap"
)

// finding is what doctor found about one need.
type finding struct {
	Name   string `json:"name"`
	Met    bool   `json:"met"`
	Needed bool   `json:"needed"` // false: run and demo work without
	Detail string `json:"detail"`
	Remedy string `json:"remedy,omitempty"`
}

// diagnosis is everything that doctor says.
type diagnosis struct {
	Run      bool      `json:"run"`    // run can make its interfaces here
	Demo     bool      `json:"demo"`   // demo gets real TAPs
	Engine   string    `json:"engine"` // what --engine auto takes here
	Why      string    `json:"engine_why"`
	Findings []finding `json:"findings"`
	tun      bool      // the tun device can be opened
}

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
			return doctor(cmd.OutOrStdout(), diagnose(), asJSON)
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one JSON object")
	return cmd
}

// diagnose looks at the machine.
func diagnose() diagnosis {
	engine, why := tap.Probe()
	d := diagnosis{Engine: engine.String(), Why: why}
	met := map[string]bool{}
	for _, n := range rig.Needs() {
		met[n.Name] = n.Met
		d.Findings = append(d.Findings, finding{n.Name, n.Met, true, n.Detail, n.Remedy})
	}
	tun, admin := met["tun device"], met["CAP_NET_ADMIN"]
	d.tun, d.Run = tun, tun && admin
	d.Demo = tun && (admin || met["user namespaces"])
	for i := range d.Findings {
		if f := &d.Findings[i]; f.Name == "user namespaces" {
			f.Needed = !admin // root makes its namespaces without one
		}
	}
	d.Findings = append(d.Findings, limits()...)
	d.Findings = append(d.Findings, kernel(), ring(engine, why), confinement(), steering())
	d.Findings = append(d.Findings, bridges()...)
	return d
}

// doctor prints the diagnosis. It returns an error where run or demo cannot
// work.
func doctor(out io.Writer, d diagnosis, asJSON bool) error {
	var err error
	if asJSON {
		err = printJSON(out, d)
	} else {
		err = printTable(out, d)
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

func printTable(out io.Writer, d diagnosis) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	for _, f := range d.Findings {
		fmt.Fprintf(w, "%s\t%s\t%s\n", f.Name, f.state(), f.Detail)
		if f.Remedy != "" {
			fmt.Fprintf(w, "\t\tDo: %s\n", f.Remedy)
		}
	}
	if err := w.Flush(); err != nil {
		return err
	}
	fmt.Fprintf(w, "\nengine\tauto is %s: %s\n", d.Engine, d.Why)
	fmt.Fprintf(w, "run\t%s\n", d.runs())
	fmt.Fprintf(w, "demo\t%s\n", choose(d.Demo, "works on real TAPs", "works in memory only"))
	return w.Flush()
}

// runs says whether run works here, and what does without the privilege.
func (d diagnosis) runs() string {
	switch {
	case d.Run:
		return "works"
	case !d.tun:
		return "needs the tun device"
	case d.Demo:
		return "cannot make interfaces here; those that root made for this user and brought up will do, and so will unshare -Urn"
	}
	return "cannot make interfaces here; those that root made for this user and brought up will do"
}

func (f finding) state() string {
	switch {
	case f.Met:
		return "yes"
	case f.Needed:
		return "NO"
	}
	return "note"
}

func choose(yes bool, a, b string) string {
	if yes {
		return a
	}
	return b
}
