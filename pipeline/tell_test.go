package pipeline_test

import (
	"bytes"
	"slices"
	"testing"

	"tapsec/esp"
	"tapsec/internal/lab/forge"
	"tapsec/pipeline"
	"tapsec/sa"
	"tapsec/status"
	"tapsec/test/testkit"
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

// Of several headers the ICV of the one that failed is computed, and no other; each step shows which portions
// were checked by then.
func TestTellFindsTheHeader(t *testing.T) {
	sas, around := bundle(sa.Transport), espSA(sa.Tunnel)
	e, a := sas[0], sas[1]
	flip := func(at int) func([]byte) []byte {
		return func(b []byte) []byte { b[(len(b)+at)%len(b)] ^= 1; return b }
	}
	for spoilt, c := range map[*sa.SA]frameCase{
		around: {spoil: flip(-1)},
		a:      {mangle: map[*sa.SA]forge.Mangle{around: flip(20 + 12)}}, // behind IP and AH headers
		e:      {mangle: map[*sa.SA]forge.Mangle{a: flip(-1)}},
	} {
		c.sas = append(slices.Clone(sas), around)
		var all []pipeline.Header
		frame := pipeline.New(c.nic(t), pipeline.Options{}).Tell(c.seal(t).frame, func(s pipeline.Step) {
			all = append(s.Outer.Headers, s.Inner.Headers...)
			if s.Outer.Checked != (s.Stage != "parse") || s.Inner.Checked != (s.Stage == "transport" && spoilt != around) {
				t.Errorf("%s is wrong; after %s the outer portion is checked: %v, the inner one: %v", spoilt, s.Stage, s.Outer.Checked, s.Inner.Checked)
			}
		})
		for _, h := range all {
			if h.SA != spoilt && h.Computed != nil || h.SA == spoilt && (h.Computed == nil || bytes.Equal(h.Computed, frame[h.ICV:][:len(h.Computed)])) {
				t.Errorf("%s is wrong; of %s %x is computed, in the frame is %x", spoilt, h.SA, h.Computed, frame[h.ICV:][:h.SA.Suite.ICVLen])
			}
		}
	}
}

// A packet that has no room for an ICV, is cut off or whose suite has none shows no place of one.
func TestTellWithoutAnICV(t *testing.T) {
	const begin, icv = 14 + 20, 16
	place := func(c frameCase, frame []byte) (at int) {
		tell(t, c.nic(t), frame, func(s pipeline.Step) {
			for _, h := range s.Outer.Headers {
				at = h.ICV
			}
		})
		return at
	}
	short := frameCase{sas: []*sa.SA{espSA(sa.Transport)}}
	for n := 8; n < 40; n++ {
		want := 0
		if n >= esp.HeaderLen+icv {
			want = begin + n - icv
		}
		frame := forge.AppendFrame(nil, raw(50, host4a, host4b, append([]byte{0, 0, 0x10, 0x01}, make([]byte, n-4)...)...))
		if at := place(short, frame); at != want {
			t.Errorf("of %d bytes of ESP the ICV is at %d, want %d", n, at, want)
		}
		if at := place(short, frame[:len(frame)-1]); at != 0 {
			t.Errorf("of %d bytes of ESP, one of them lost, the ICV is at %d", n, at)
		}
	}
	none := frameCase{sas: bundle(sa.Transport)}
	testkit.Suite("aes128")(none.sas[0])
	if at := place(none, none.seal(t).frame); at != 0 {
		t.Errorf("without integrity the ICV is at %d", at)
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
