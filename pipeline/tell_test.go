package pipeline_test

import (
	"bytes"
	"testing"

	"tapsec/internal/lab/testkit"
	"tapsec/pipeline"
	"tapsec/sa"
	"tapsec/status"
)

// What Tell computes of a wrong ICV is the right one: put in its place, the frame is good.
// All suites, both modes, with and without ESN.
func TestTellComputesTheICV(t *testing.T) {
	for _, p := range []sa.Protocol{sa.ESP, sa.AH} {
		for _, su := range sa.Suites(p) {
			for _, mode := range []sa.Mode{sa.Transport, sa.Tunnel} {
				for _, more := range []change{func(*sa.SA) {}, esn} {
					if su.ICVLen == 0 {
						continue
					}
					make := espSA
					if p == sa.AH {
						make = ahSA
					}
					a := make(mode, testkit.Suite(su.Name), more)
					c := frameCase{sas: []*sa.SA{a}}
					frame := c.seal(t).frame
					wrong := bytes.Clone(frame)
					var computed pipeline.Header
					tell(t, c.nic(t), bytes.Clone(frame), func(s pipeline.Step) {
						for _, h := range s.Outer.Headers {
							if computed = h; h.Computed != nil {
								t.Errorf("%s: the ICV of a good frame is computed: %x", a, h.Computed)
							}
						}
					})
					wrong[computed.ICV] ^= 1
					got := tell(t, c.nic(t), bytes.Clone(wrong), func(s pipeline.Step) {
						if n := len(s.Outer.Headers); n > 0 {
							computed = s.Outer.Headers[n-1]
						}
					})
					if got.Word.Code() == status.Success || len(computed.Computed) != su.ICVLen {
						t.Errorf("%s: %s, computed %x", a, got.Word, computed.Computed)
						continue
					}
					copy(wrong[computed.ICV:], computed.Computed)
					if !bytes.Equal(wrong, frame) {
						t.Errorf("%s: with the ICV computed the frame is\n%x, want\n%x", a, wrong, frame)
					}
				}
			}
		}
	}
}

func tell(t *testing.T, d *pipeline.SAD, frame []byte, f func(pipeline.Step)) status.Trailer {
	t.Helper()
	_, trailer, err := status.Split(pipeline.New(d, pipeline.Options{}).Tell(frame, f))
	if err != nil {
		t.Fatal(err)
	}
	return trailer
}
