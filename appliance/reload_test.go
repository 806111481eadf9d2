package appliance

import (
	"slices"
	"testing"

	"tapsec/configs"
	"tapsec/sa"
)

// TestFixed: every field that a running appliance cannot change is found, and
// stays as it was.
func TestFixed(t *testing.T) {
	old := configs.Default()
	next := configs.Default()
	if got := fixed(old, next); got != nil {
		t.Errorf("equal configurations differ in %v", got)
	}
	old.Policy = []sa.Policy{{Action: sa.Protect}} // which another one may replace, but not none
	next.Profile, _ = sa.ProfileByName("mlx5-crypto")
	next.SACapacity, next.Queues, next.Wire.MTU, next.Host.Form = 5, 2, 9000, configs.Decap
	want := []string{"profile", "sa_capacity", "queues", "wire", "host", "policy"}
	if got := fixed(old, next); !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if err := keepFixed(next, old); err != nil {
		t.Fatal(err)
	}
	if got := fixed(old, next); got != nil || len(next.Policy) != 1 || next.Policy[0].Action != sa.Protect {
		t.Errorf("%v changed all the same, policy %v", got, next.Policy)
	}
	next.Policy = []sa.Policy{{Action: sa.Discard}}
	if got := fixed(old, next); got != nil {
		t.Errorf("another policy needs a restart: %v", got)
	}
}
