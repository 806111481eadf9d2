package testbed

import (
	"testing"
	"time"

	"tapsec/internal/lab/conformance"
	"tapsec/internal/lab/rig"
)

// Mixed traffic through the appliance on TAPs comes back whole, in order, and as
// the contract says: nothing else passes there.
func TestLoadOnTAPs(t *testing.T) {
	if !rig.Own(t) {
		return
	}
	b, err := OpenTAPs()
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range conformance.Contract() {
		if l.Name != "layers" {
			continue
		}
		if err := b.Ready(&l); err != nil {
			t.Fatal(err)
		}
		if r, err := b.Load(&l, 500*time.Millisecond); err != nil || r.Sent == 0 || r.Received != r.Sent || r.Wrong > 0 {
			t.Errorf("%+v, %v", r, err)
		}
	}
	if err := b.Close(); err != nil {
		t.Error(err)
	}
}
