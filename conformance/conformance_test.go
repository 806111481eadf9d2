package conformance

import (
	"bytes"
	"fmt"
	"testing"

	"tapsec/pipeline"
	"tapsec/status"
)

// Every case of every lab is answered as the contract says.
func TestLabs(t *testing.T) {
	for _, l := range Labs() {
		p := newPipeline(t, &l)
		for _, c := range l.Cases {
			t.Run(fmt.Sprintf("row %s/%s/%s", c.Row, l.Name, c.Title), func(t *testing.T) {
				_, tr, err := status.Split(p.Process(bytes.Clone(c.Frame)))
				if err != nil {
					t.Fatal(err)
				}
				if tr.Word != c.Word || tr.Reason != c.Reason {
					t.Errorf("word %s, reason %s; want %s, %s", tr.Word, tr.Reason, c.Word, c.Reason)
				}
			})
		}
	}
}

func newPipeline(t *testing.T, l *Lab) *pipeline.Pipeline {
	t.Helper()
	sad := pipeline.NewSAD(l.Profile, 1)
	if err := l.Arrange(sad); err != nil {
		t.Fatal(err)
	}
	return pipeline.New(sad, pipeline.Options{})
}

// No row of the table is missing.
func TestEveryRow(t *testing.T) {
	seen := map[string]bool{"23b": false}
	for i := 1; i <= 33; i++ {
		seen[fmt.Sprint(i)] = false
	}
	for _, l := range Labs() {
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
