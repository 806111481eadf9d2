package daemon

import (
	"testing"

	"tapsec/configs"
)

const sample = "../../configs/example.yaml"

// TestSettings: a setting overrides the file; what is not given does not.
func TestSettings(t *testing.T) {
	plain, err := (&Settings{Config: sample}).Load()
	if err != nil {
		t.Fatal(err)
	}
	if plain.Wire.Name != "wire0" || plain.Host.Form != configs.InPlace || plain.Queues != 1 || !plain.Offload.Active {
		t.Errorf("no flags: %+v %+v", plain.Wire, plain.Host)
	}
	o := Settings{Config: sample, Wire: "w", Host: "h", WireNetns: "a", HostNetns: "b", Queues: 3,
		Form: configs.Decap, Annotate: configs.None, Inactive: true}
	c, err := o.Load()
	if err != nil {
		t.Fatal(err)
	}
	if c.Wire != (configs.Interface{Name: "w", Netns: "a"}) ||
		c.Host.Interface != (configs.Interface{Name: "h", Netns: "b"}) ||
		c.Host.Form != configs.Decap || c.Host.Annotate != configs.None || c.Queues != 3 || c.Offload.Active {
		t.Errorf("all flags: %+v %+v %d %+v", c.Wire, c.Host, c.Queues, c.Offload)
	}
	for _, wrong := range []Settings{{}, {Config: "absent.yaml"}, {Config: sample, Queues: -1},
		{Config: sample, Wire: "host0"}, {Config: sample, Annotate: configs.None}} {
		if _, err := wrong.Load(); err == nil {
			t.Errorf("%+v was accepted", wrong)
		}
	}
}

// TestKeys: SAs come from another tool's text, alone or beside a
// configuration, and are read anew by each load.
func TestKeys(t *testing.T) {
	const receiver, sender = "../../keys/testdata/used-receiver.txt", "../../keys/testdata/used-sender.txt"
	states := []string{receiver}
	alone, err := (&Settings{Keys: states, Queues: 2}).Load()
	if err != nil || len(alone.SAs) != 2 || alone.Queues != 2 || len(alone.Bundles()) != 2 {
		t.Errorf("%+v, %v", alone, err)
	}
	plain, err := (&Settings{Config: sample}).Load()
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		both, err := (&Settings{Config: sample, Keys: states}).Load()
		if err != nil || len(both.SAs) != len(plain.SAs)+2 {
			t.Errorf("%+v, %v", both, err)
		}
	}
	// Both ends' texts are one SA each, which has come to the higher of the numbers.
	ends, err := (&Settings{Keys: []string{receiver, sender}}).Load()
	if err != nil || len(ends.SAs) != 2 || ends.SAs[0].Seq != 0x200000002 || ends.SAs[0].OSeq != 0x200000002 {
		t.Errorf("both ends: %+v, %v", ends.SAs, err)
	}
	for _, wrong := range []Settings{{Keys: []string{"-"}}, {Keys: []string{"absent"}}, {Config: receiver}, {Config: sample, Keys: []string{"daemon.go"}}} {
		if _, err := wrong.Load(); err == nil {
			t.Errorf("%+v was accepted", wrong)
		}
	}
}
