package rig

import (
	"fmt"
	"io"
	"text/tabwriter"
	"time"
)

// Report is a rig as status shows it.
type Report struct {
	*Standing
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

// Report looks at the rig.
func (s *Standing) Report() Report {
	r := Report{Standing: s, Up: s.Up(), Dir: s.Dir(), Log: s.Log()}
	for _, p := range s.Programs {
		r.Programs = append(r.Programs, ProgramReport{p, p.Process.Alive()})
	}
	return r
}

// Whole reports whether supervisor and programs all live.
func (r Report) Whole() bool {
	for _, p := range r.Programs {
		if !p.Alive {
			return false
		}
	}
	return r.Up
}

// WriteText writes the report for people.
func (r Report) WriteText(out io.Writer) error {
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
