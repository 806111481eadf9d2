package conformance

import (
	"bytes"
	"fmt"
	"testing"

	"tapsec/pipeline"
	"tapsec/status"
)

// Every case of every setup is answered as the contract says.
func TestContract(t *testing.T) {
	for _, l := range Contract() {
		p := newPipeline(t, &l, status.InPlace)
		for _, c := range l.Cases {
			t.Run(fmt.Sprintf("row %s/%s/%s", c.Row, l.Name, c.Title), func(t *testing.T) {
				if err := c.Check(p.Process(bytes.Clone(c.Frame))); err != nil {
					t.Error(err)
				}
			})
		}
	}
}

func newPipeline(t *testing.T, l *Setup, form status.Form) *pipeline.Pipeline {
	t.Helper()
	sad := pipeline.NewSAD(l.Profile, 1)
	if err := l.Arrange(sad); err != nil {
		t.Fatal(err)
	}
	return pipeline.New(sad, pipeline.Options{Form: form})
}

// No row of the table is missing.
func TestEveryRow(t *testing.T) {
	seen := map[string]bool{"23b": false}
	for i := 1; i <= 35; i++ {
		seen[fmt.Sprint(i)] = false
	}
	for _, l := range Contract() {
		for _, c := range l.Cases {
			if _, ok := seen[c.Row]; !ok {
				t.Errorf("row %q is not in the table", c.Row)
			}
			seen[c.Row] = true
		}
	}
	for row, ok := range seen {
		if !ok {
			t.Errorf("row %s has no frame", row)
		}
	}
}

// A NIC that has the SAs of several vectors answers each as one with its own
// SAs alone, and no case is lost.
func TestSetups(t *testing.T) {
	cases, names := 0, map[string]bool{}
	for _, l := range Setups() {
		if names[l.Name] {
			t.Errorf("two setups are called %s", l.Name)
		}
		names[l.Name] = true
		cases += len(l.Cases)
		p := newPipeline(t, &l, status.InPlace)
		for _, c := range l.Cases {
			if err := c.Check(p.Process(bytes.Clone(c.Frame))); err != nil {
				t.Errorf("%s: %s, %s: %v", l.Name, c.Source.Name, c.Title, err)
			}
		}
	}
	want := 0
	for _, l := range append(Contract(), Vectors()...) {
		want += len(l.Cases)
	}
	if cases != want {
		t.Errorf("%d cases, the setups have %d", cases, want)
	}
	t.Logf("%d setups, %d cases", len(names), cases)
}
