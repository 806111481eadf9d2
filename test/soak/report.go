package soak

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// Report is the result of a campaign.
type Report struct {
	Steps      int
	Sent       uint64 // datagrams
	Arrived    uint64
	Frames     uint64 // on the wire
	Forged     uint64 // the attacker's
	Excused    uint64 // datagrams sent in quiet that a kernel dropped and counted
	Pushed     uint64 // datagrams sent to get beyond a lease
	Actions    map[string]int
	Violations map[string]int // by kind
	Found      []string       // the first violations, without the evidence
}

// String is the report in a few lines.
func (r *Report) String() string {
	text := fmt.Sprintf("%d steps; %d datagrams sent, %d arrived, %d excused in quiet, %d to get over leases; %d frames on the wire, %d of the attacker's\n",
		r.Steps, r.Sent, r.Arrived, r.Excused, r.Pushed, r.Frames, r.Forged)
	return text + "actions: " + counts(r.Actions) + "\nviolations: " + counts(r.Violations)
}

func counts(m map[string]int) string {
	var all []string
	for name, n := range m {
		all = append(all, fmt.Sprintf("%s %d", name, n))
	}
	if len(all) == 0 {
		return "none"
	}
	slices.Sort(all)
	return strings.Join(all, ", ")
}

func (c *campaign) say(format string, args ...any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	fmt.Fprintf(c.o.Log, "%7.2f s  %s\n", time.Since(c.began).Seconds(), fmt.Sprintf(format, args...))
}

const (
	remembered = 12 // actions shown with a violation
	shown      = 5  // violations of a kind that are shown whole
)

// log remembers an action.
func (c *campaign) log(format string, args ...any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.recent = append(c.recent, fmt.Sprintf("%.2f s %s", time.Since(c.began).Seconds(), fmt.Sprintf(format, args...)))
	c.recent = c.recent[max(0, len(c.recent)-remembered):]
}

// violate reports a violation. Of each kind the first few are shown, with the
// actions before them.
func (c *campaign) violate(kind, format string, args ...any) {
	c.mu.Lock()
	c.report.Violations[kind]++
	n, recent, text := c.report.Violations[kind], strings.Join(c.recent, "; "), fmt.Sprintf(format, args...)
	if n <= shown {
		c.report.Found = append(c.report.Found, fmt.Sprintf("%.2f s %s: %.300s\nbefore: %s", time.Since(c.began).Seconds(), kind, text, recent))
	}
	c.mu.Unlock()
	c.failed.Store(true)
	if n <= shown {
		c.say("VIOLATION %s (seed %d, step %d): %s\n    before: %s", kind, c.o.Seed, c.report.Steps, text, recent)
	}
}

// evidence is what the programs have said and counted.
func (c *campaign) evidence() string {
	text := ""
	for _, p := range c.programs {
		text += fmt.Sprintf("  %s said\n%s\n", p.process.name, p.process.said())
		for _, document := range []string{"moved", "nic", "transport", "outbound", "windows"} {
			answer := p.ask(document)
			text += fmt.Sprintf("    %s: %s\n", document, answer[:min(len(answer), 2000)])
		}
	}
	return text
}
