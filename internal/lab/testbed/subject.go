package testbed

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"tapsec/internal/lab/conformance"
)

// Subject names the NIC to judge: this program's, on TAPs if there can be any, or another.
type Subject struct {
	TAPs   bool // this program's on TAPs, and nothing else
	Memory bool // this program's pipeline alone

	Wire, Host string        // the other NIC's interfaces
	Configure  string        // shell command that readies it (openOther)
	Wait       time.Duration // how long it may keep a frame
}

// Check finds settings that do not go together, for that many setups.
func (n *Subject) Check(setups int) error {
	nics := 0
	for _, is := range []bool{n.TAPs, n.Memory, n.Wire != ""} {
		if is {
			nics++
		}
	}
	switch other := n.Wire != ""; {
	case other != (n.Host != ""):
		return errors.New("--wire and --host: expected both or neither")
	case nics > 1:
		return errors.New("--tap, --memory, and --wire with --host: expected one of them")
	case n.Wait <= 0 || n.Wait > time.Minute:
		return fmt.Errorf("--wait: expected more than 0s, up to 1m, found %s", n.Wait)
	case n.Configure != "" && !other:
		return errors.New("--configure is for another NIC: say also --wire and --host")
	case other && n.Configure == "" && setups > 1:
		return fmt.Errorf("%d setups, each another configuration: say with --configure how to ready the NIC, or ready it for one and name that with --setup", setups)
	}
	return nil
}

// OpenNIC is a NIC that was opened.
type OpenNIC interface {
	conformance.NIC
	io.Closer
}

// Open opens the NIC, and says which it is. Another NIC's is over when ctx ends. noRig says why this process is not in a rig, where
// TAPs can be had; nil if it is. What another NIC's command prints goes to said.
func (n *Subject) Open(ctx context.Context, noRig error, said io.Writer) (_ OpenNIC, who string, err error) {
	switch {
	case n.Wire != "":
		other, err := openOther(ctx, n.Wire, n.Host, n.Configure, n.Wait, said)
		return other, fmt.Sprintf("the NIC between %s and %s", n.Wire, n.Host), err
	case n.Memory:
		return &Memory{}, "this program's pipeline, in memory", nil
	case noRig == nil:
		var taps *TAPs
		if taps, noRig = OpenTAPs(); noRig == nil {
			return taps, "this program, on TAPs", nil
		}
	}
	if n.TAPs {
		return nil, "", fmt.Errorf("conformance needs TAPs: %w", noRig)
	}
	return &Memory{}, fmt.Sprintf("this program's pipeline, in memory (%v)", noRig), nil
}
