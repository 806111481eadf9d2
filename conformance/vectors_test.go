package conformance

import (
	"bytes"
	"testing"

	"tapsec/pipeline"
	"tapsec/status"
)

// Every vector is answered with its word, reason and records, and delivered
// with its plaintext in place and nothing else changed (contract, bytes of a
// delivered frame), or decapsulated to the packet that was sealed (contract,
// decap form).
func TestVectors(t *testing.T) {
	for _, l := range Vectors() {
		for _, form := range []status.Form{status.InPlace, status.Decap} {
			sad := pipeline.NewSAD(l.Profile, 1)
			if err := l.Arrange(sad); err != nil {
				t.Fatal(err)
			}
			p := pipeline.New(sad, pipeline.Options{Form: form})
			for _, c := range l.Cases {
				if err := c.Check(p.Process(bytes.Clone(c.Frame))); err != nil {
					t.Errorf("%s: %s, %s:\n%v", l.Name, c.Title, form, err)
				}
			}
		}
	}
}
