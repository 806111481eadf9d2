package conformance

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"tapsec/configs"
	"tapsec/pipeline"
	"tapsec/sa"
	"tapsec/status"
)

// memory is the pipeline, whose answers a fault changes.
type memory struct {
	t     *testing.T
	pipe  *pipeline.Pipeline
	fault func(delivered [][]byte) [][]byte
}

func (m *memory) Ready(l *Setup) error {
	if l.Inactive {
		return fmt.Errorf("%w: for a test", ErrNotRun)
	}
	m.pipe = newPipeline(m.t, l, 0)
	return nil
}

func (m *memory) Exchange(frames [][]byte) (delivered [][]byte, err error) {
	for _, f := range frames {
		delivered = append(delivered, m.pipe.Process(bytes.Clone(f)))
	}
	if m.fault != nil {
		delivered = m.fault(delivered)
	}
	return delivered, nil
}

func run(t *testing.T, fault func([][]byte) [][]byte) *Report {
	t.Helper()
	setups := Setups()
	results, err := Run(&memory{t: t, fault: fault}, setups)
	if err != nil {
		t.Fatal(err)
	}
	Sort(results)
	return &Report{NIC: "a test's", Results: results}
}

// A frame is known by its stamp: what is lost, doubled or altered fails by
// itself, and order among frames under way does not matter.
func TestRun(t *testing.T) {
	good := run(t, nil).Totals()
	if good.Failed > 0 || good.NotRun != 1 || good.Passed < 3000 {
		t.Fatal(good)
	}
	for _, c := range []struct {
		how     string
		fault   func([][]byte) [][]byte
		failing int // of each exchange
		says    string
	}{
		{"reversed", func(d [][]byte) [][]byte { slices.Reverse(d); return d }, 0, ""},
		{"the first lost", func(d [][]byte) [][]byte { return d[1:] }, 1, "nothing came"},
		{"the last twice", func(d [][]byte) [][]byte { return append(d, d[len(d)-1]) }, 1, "2 times"},
		{"one without its trailer", func(d [][]byte) [][]byte { d[0], _, _ = status.Split(d[0]); return d }, 1, "no trailer follows"},
		{"one with other bytes", func(d [][]byte) [][]byte {
			body, _, _ := status.Split(d[0])
			body[len(body)-1] ^= 1
			d[0] = body
			return d
		}, 1, "it came with other bytes, and no trailer follows them"},
		{"one with a torn trailer", func(d [][]byte) [][]byte { d[0][len(d[0])-20] ^= 1; return d }, 1, "the CRC-32C or the lengths of its trailer are wrong"},
		{"another bit", func(d [][]byte) [][]byte { d[0][len(d[0])-9] ^= 1; return d }, 1, ""},
		{"one not ours", func(d [][]byte) [][]byte { return append(d, make([]byte, 60)) }, 0, ""},
	} {
		exchanges := 0
		r := run(t, func(d [][]byte) [][]byte { exchanges++; return c.fault(d) })
		if got := r.Totals(); got.Failed != c.failing*exchanges || got.Passed != good.Passed-got.Failed {
			t.Errorf("%s: %s in %d exchanges", c.how, got, exchanges)
		}
		for _, one := range r.Results {
			if !one.Passed() && !errors.Is(one.Differs, ErrNotRun) && !strings.Contains(one.Differs.Error(), c.says) {
				t.Errorf("%s: %v", c.how, one.Differs)
			}
		}
	}
}

// cable is no NIC: what goes in comes out, except for every tenth frame.
type cable struct{ sent int }

func (c *cable) Ready(*Setup) error { return nil }

func (c *cable) Exchange(frames [][]byte) (delivered [][]byte, err error) {
	for _, f := range frames {
		if c.sent++; c.sent%10 != 0 {
			delivered = append(delivered, f)
		}
	}
	return delivered, nil
}

// A device that is no such NIC is told what it does, once for all frames.
func TestCable(t *testing.T) {
	results, err := Run(&cable{}, Setups())
	if err != nil {
		t.Fatal(err)
	}
	lost := len(results) / 10
	var b bytes.Buffer
	r := &Report{Results: results}
	if err := r.writeText(&b, true); err != nil || r.Totals().Passed > 0 {
		t.Errorf("%v, %s", err, r.Totals())
	}
	_, kinds, _ := strings.Cut(b.String(), "\nfailed  how\n")
	want := fmt.Sprintf("%6d  it came as it was sent, and no trailer follows it (docs/trailer.md)\n%6d  nothing came to the host; every frame must, failed ones too\n\n%s\n",
		len(results)-lost, lost, r.Totals())
	if kinds != want {
		t.Errorf("%s\nwant\n%s", kinds, want)
	}
}

// A setup's configuration is the setup's NIC.
func TestWriteConfig(t *testing.T) {
	for _, l := range Setups() {
		var b bytes.Buffer
		if err := l.WriteConfig(&b); err != nil {
			t.Fatal(err)
		}
		c, err := configs.Parse(l.Name, b.Bytes())
		if err != nil {
			t.Errorf("%s: %v", l.Name, err)
			continue
		}
		same := func(x, y []*sa.SA) bool {
			return slices.EqualFunc(x, y, func(a, b *sa.SA) bool { return a.Name == b.Name && a.Same(b) && a.Encap == b.Encap })
		}
		if !slices.EqualFunc(c.Bundles(), l.Bundles, same) || c.Profile.Name != l.Profile.Name || c.Offload.Active == l.Inactive {
			t.Errorf("%s: another NIC comes of\n%s", l.Name, b.String())
		}
	}
}

// All forms of a report tell the same.
func TestReport(t *testing.T) {
	r := run(t, func(d [][]byte) [][]byte { return d[:len(d)-1] })
	totals := r.Totals()
	var text, object, junit, page bytes.Buffer
	if err := errors.Join(r.writeText(&text, true), r.writeJSON(&object), r.writeJUnit(&junit), r.WriteHTML(&page)); err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(text.String(), "\nFAILED"); n != totals.Failed || !strings.HasSuffix(text.String(), "\n"+totals.String()+"\n") {
		t.Errorf("%d lines of failures, %s:\n%s", n, totals, text.String())
	}
	if html := page.String(); strings.Count(html, `<span class="bad">failed</span>`) != totals.Failed || strings.Count(html, "<td class=\"bad\">failed</td>") != totals.Failed ||
		!strings.Contains(html, totals.String()) || strings.Contains(html, "<script") || strings.Contains(html, "http") && !strings.Contains(html, "http-equiv") {
		t.Errorf("the page does not tell of %s", totals)
	}
	var o struct {
		Totals
		Sources []struct{ Totals }
		Results []struct{ Outcome string }
	}
	if err := json.Unmarshal(object.Bytes(), &o); err != nil || o.Totals != totals || len(o.Results) != len(r.Results) {
		t.Errorf("JSON: %v, %s, %d results", err, o.Totals, len(o.Results))
	}
	var sum Totals
	for _, s := range o.Sources {
		sum = Totals{sum.Passed + s.Passed, sum.Failed + s.Failed, sum.NotRun + s.NotRun}
	}
	if sum != totals {
		t.Errorf("the sources sum up to %s, not %s", sum, totals)
	}
	var suites struct {
		Failures int `xml:"failures,attr"`
		Suites   []struct {
			Cases []struct {
				Failure *string `xml:"failure"`
			} `xml:"testcase"`
		} `xml:"testsuite"`
	}
	if err := xml.Unmarshal(junit.Bytes(), &suites); err != nil || suites.Failures != totals.Failed {
		t.Errorf("JUnit: %v, %d failures", err, suites.Failures)
	}
	failed := 0
	for _, s := range suites.Suites {
		for _, c := range s.Cases {
			if c.Failure != nil {
				failed++
			}
		}
	}
	if failed != totals.Failed {
		t.Errorf("JUnit: %d cases failed", failed)
	}
	if first, last := r.Results[0], r.Results[len(r.Results)-1]; first.Row != "1" || last.Row != "" {
		t.Errorf("from row %q to %q", first.Row, last.Row)
	}
}
