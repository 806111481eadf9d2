package cli

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"tapsec/configs"
)

const runSample = "../../configs/example.yaml"

// TestRunFlags: a flag overrides the file, what was not given does not.
func TestRunFlags(t *testing.T) {
	plain, err := (&runOptions{config: runSample}).load()
	if err != nil {
		t.Fatal(err)
	}
	if plain.Wire.Name != "wire0" || plain.Host.Form != configs.InPlace || plain.Queues != 1 || !plain.Offload.Active {
		t.Errorf("no flags: %+v %+v", plain.Wire, plain.Host)
	}
	o := runOptions{config: runSample, wire: "w", host: "h", wireNetns: "a", hostNetns: "b", queues: 3,
		form: configs.Decap, annotate: configs.None, inactive: true}
	c, err := o.load()
	if err != nil {
		t.Fatal(err)
	}
	if c.Wire != (configs.Interface{Name: "w", Netns: "a"}) ||
		c.Host.Interface != (configs.Interface{Name: "h", Netns: "b"}) ||
		c.Host.Form != configs.Decap || c.Host.Annotate != configs.None || c.Queues != 3 || c.Offload.Active {
		t.Errorf("all flags: %+v %+v %d %+v", c.Wire, c.Host, c.Queues, c.Offload)
	}
	for _, wrong := range []runOptions{{}, {config: "absent.yaml"}, {config: runSample, queues: -1},
		{config: runSample, wire: "host0"}, {config: runSample, annotate: configs.None}} {
		if _, err := wrong.load(); err == nil {
			t.Errorf("%+v was accepted", wrong)
		}
	}
}

// TestRunKeys: SAs come from another tool's text, alone or beside a
// configuration, and are read anew by each load.
func TestRunKeys(t *testing.T) {
	const receiver, sender = "../../keys/testdata/used-receiver.txt", "../../keys/testdata/used-sender.txt"
	states := []string{receiver}
	alone, err := (&runOptions{keys: states, queues: 2}).load()
	if err != nil || len(alone.SAs) != 2 || alone.Queues != 2 || len(alone.Bundles()) != 2 {
		t.Errorf("%+v, %v", alone, err)
	}
	plain, err := (&runOptions{config: runSample}).load()
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		both, err := (&runOptions{config: runSample, keys: states}).load()
		if err != nil || len(both.SAs) != len(plain.SAs)+2 {
			t.Errorf("%+v, %v", both, err)
		}
	}
	// Both ends' texts are one SA each, which has come to the higher of the numbers.
	ends, err := (&runOptions{keys: []string{receiver, sender}}).load()
	if err != nil || len(ends.SAs) != 2 || ends.SAs[0].Seq != 0x200000002 || ends.SAs[0].OSeq != 0x200000002 {
		t.Errorf("both ends: %+v, %v", ends.SAs, err)
	}
	for _, wrong := range []runOptions{{keys: []string{"-"}}, {keys: []string{"absent"}}, {config: receiver}, {config: runSample, keys: []string{"run.go"}}} {
		if _, err := wrong.load(); err == nil {
			t.Errorf("%+v was accepted", wrong)
		}
	}
}

// TestMan writes a page for each command that a user sees, in both forms.
func TestMan(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "man1")
	root := newRoot()
	if err := errors.Join(man(root, dir, false), man(root, dir, true)); err != nil {
		t.Fatal(err)
	}
	for _, cmd := range root.Commands() {
		if cmd.Hidden || cmd.Name() == "help" {
			continue
		}
		page, err := os.ReadFile(filepath.Join(dir, "tapsec-"+cmd.Name()+".1"))
		if err != nil || !strings.Contains(string(page), ".SH NAME") {
			t.Errorf("%s: %v", cmd.Name(), err)
		}
		page, err = os.ReadFile(filepath.Join(dir, "tapsec_"+cmd.Name()+".md"))
		if err != nil || !strings.HasPrefix(string(page), "## tapsec "+cmd.Name()+"\n") {
			t.Errorf("%s in Markdown: %v", cmd.Name(), err)
		}
	}
}
