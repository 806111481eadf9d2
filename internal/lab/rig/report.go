package rig

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// Report is a rig as status shows it.
type Report struct {
	*State
	Up       bool            `json:"up"`
	Dir      string          `json:"dir"`
	Log      string          `json:"log"`
	Programs []ProgramReport `json:"programs"`
}

// ProgramReport is a program of a rig as status shows it.
type ProgramReport struct {
	Program
	Alive bool `json:"alive"`
}

// Reports are the reports of several rigs.
type Reports []Report

// Look reports on the rigs of these names, or on all.
func Look(names ...string) (Reports, error) {
	all := []*State{}
	for _, name := range names {
		s, err := Find(name)
		if err != nil {
			return nil, err
		}
		all = append(all, s)
	}
	if len(names) == 0 {
		var err error
		if all, err = All(); err != nil {
			return nil, err
		}
	}
	reports := Reports{}
	for _, s := range all {
		reports = append(reports, s.report())
	}
	return reports, nil
}

// Whole returns an error unless there are rigs, and all their programs live.
func (r Reports) Whole() error {
	var ended []string
	for _, rig := range r {
		if !rig.whole() {
			ended = append(ended, rig.Name)
		}
	}
	switch {
	case len(r) == 0:
		return errors.New("no rig is up; tapsec rig up puts one up")
	case len(ended) > 0:
		return fmt.Errorf("not all of rig %s runs; tapsec rig down clears it away", strings.Join(ended, ", "))
	}
	return nil
}

// WriteText writes the reports for people.
func (r Reports) WriteText(out io.Writer) error {
	for _, rig := range r {
		if err := rig.writeText(out); err != nil {
			return err
		}
	}
	return nil
}

func (s *State) report() Report {
	r := Report{State: s, Up: s.Up(), Dir: s.Dir(), Log: s.Log()}
	for _, p := range s.Programs {
		r.Programs = append(r.Programs, ProgramReport{p, p.Process.Alive()})
	}
	return r
}

// whole reports whether supervisor and programs all live.
func (r Report) whole() bool {
	return r.Up && !slices.ContainsFunc(r.Programs, func(p ProgramReport) bool { return !p.Alive })
}

func (r Report) writeText(out io.Writer) error {
	state, supervisor := "up since "+r.Since.Format(time.DateTime), "runs"
	if !r.Up {
		supervisor = "DIED"
		state = fmt.Sprintf("DIED; it was put up at %s", r.Since.Format(time.DateTime))
	}
	if r.Rootless {
		state += ", without root"
	}
	fmt.Fprintf(out, "rig %s: %s\n", r.Name, state)
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	for _, h := range r.Hosts {
		fmt.Fprintf(w, "  host %s\t%s\n", h.Name, h.Line())
	}
	fmt.Fprintf(w, "  supervisor\tpid %d\t%s\n", r.Supervisor.PID, supervisor)
	for _, p := range r.Programs {
		fmt.Fprintf(w, "  %s\tpid %d\t%s\n", p.Name, p.Process.PID, p.state())
	}
	fmt.Fprintf(w, "  configuration\t%s\n  log\t%s\n", r.Config, r.Log)
	return w.Flush()
}

func (p ProgramReport) state() string {
	switch {
	case p.Alive:
		return "runs"
	case p.Ended == "":
		return "ENDED"
	}
	return "ENDED: " + p.Ended
}

// Line is a host's interface and addresses, without the tunnel's endpoint.
func (h Host) Line() string {
	if h.Interface == "" {
		return "the namespace of the programs, with the wire"
	}
	line := h.Interface
	for _, a := range h.Addresses {
		if !a.IsSingleIP() {
			line += "  " + a.Addr().String()
		}
	}
	return line
}
