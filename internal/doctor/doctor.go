// Package doctor checks everything on a machine that the appliance needs or may stumble over.
// It changes nothing, and says what to do about what is missing.
package doctor

import (
	"fmt"
	"io"
	"slices"

	"tapsec/esp"
	"tapsec/internal/lab/rig"
	"tapsec/internal/wrap"
	"tapsec/tap"
)

// Finding is the result of one check.
type Finding struct {
	Name   string `json:"name"`
	Met    bool   `json:"met"`
	Needed bool   `json:"needed"` // false: run and demo work without it
	Detail string `json:"detail"`
	Remedy string `json:"remedy,omitempty"`
}

// Diagnosis is all that was found.
type Diagnosis struct {
	Run      bool      `json:"run"`    // run can make its interfaces here
	Demo     bool      `json:"demo"`   // demo can have real TAPs
	Engine   string    `json:"engine"` // what --engine auto chooses here
	Why      string    `json:"engine_why"`
	AES      string    `json:"aes"` // whose this build has
	Findings []Finding `json:"findings"`
	tun      bool      // the tun device can be opened
}

// Diagnose checks the machine.
func Diagnose() Diagnosis {
	engine, why := tap.Probe()
	d := Diagnosis{Engine: engine.String(), Why: why, AES: esp.Ciphers}
	met := map[string]bool{}
	for _, n := range rig.Needs() {
		met[n.Name] = n.Met
		d.Findings = append(d.Findings, Finding{n.Name, n.Met, true, n.Detail, n.Remedy})
	}
	tun, admin := met["tun device"], met["CAP_NET_ADMIN"]
	counters := procfs()
	d.tun, d.Run = tun, tun && admin && counters == nil
	d.Demo = tun && (admin || met["user namespaces"])
	for i := range d.Findings {
		if f := &d.Findings[i]; f.Name == "user namespaces" {
			f.Needed = !admin // root needs no user namespace
		}
	}
	d.Findings = slices.Concat(d.Findings, counters, limits())
	d.Findings = append(d.Findings, kernel(), ring(engine, why), attach(), redirect(), confinement(), steering())
	d.Findings = append(d.Findings, bridges()...)
	return d
}

// WriteText writes the diagnosis for people.
func (d Diagnosis) WriteText(out io.Writer) error {
	w := wrap.NewColumns(out)
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
	fmt.Fprintf(w, "AES\tof %s; go build -tags ipsecmb takes libipsec-mb's\n", d.AES)
	fmt.Fprintf(w, "run\t%s\n", d.runs())
	demo := "works in memory only"
	if d.Demo {
		demo = "works on real TAPs"
	}
	fmt.Fprintf(w, "demo\t%s\n", demo)
	return w.Flush()
}

// runs says whether run works here and, if only a privilege is missing, what works instead.
func (d Diagnosis) runs() string {
	switch {
	case d.Run:
		return "works"
	case slices.ContainsFunc(d.Findings, func(f Finding) bool { return f.Name == proc }):
		return "needs /proc"
	case !d.tun:
		return "needs the tun device"
	case d.Demo:
		return "cannot make interfaces here; it can use those that root made for this user and brought up, or run in unshare -Urn"
	}
	return "cannot make interfaces here; it can use those that root made for this user and brought up"
}

func (f Finding) state() string {
	switch {
	case f.Met:
		return "yes"
	case f.Needed:
		return "NO"
	}
	return "note"
}
