package top

import (
	"fmt"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"tapsec/control"
)

func sample(value float64, labels ...string) control.Sample {
	s := control.Sample{Value: value, Labels: map[string]string{}}
	for i := 0; i < len(labels); i += 2 {
		s.Labels[labels[i]] = labels[i+1]
	}
	return s
}

// read two seconds apart.
func looked(second int, counters map[string][]control.Sample) reading {
	return reading{at: time.Unix(int64(2*second), 0), counters: counters}
}

// busy are SAs of each kind: b fails now, c has failed, a and d have traffic only.
func busy(second float64) map[string][]control.Sample {
	c := map[string][]control.Sample{}
	for i, name := range []string{"a", "b", "c", "d"} {
		c["sa_packets"] = append(c["sa_packets"], sample(float64(100*i)*second, "sa", name))
		c["sa_offloaded"] = append(c["sa_offloaded"], sample(1, "sa", name))
	}
	c["sa_dropped_frames"] = []control.Sample{sample(10*second, "sa", "b", "reason", "icv"), sample(5, "sa", "c", "reason", "length"),
		sample(99, "sa", "d", "reason", "replay")}
	c["received_frames"] = []control.Sample{sample(1000*second, "way", "to_host")}
	return c
}

// Failures come first, then traffic; a rate is a rise by the second.
func TestOrder(t *testing.T) {
	m := model{socket: "/run/x"}
	m.take(looked(0, busy(0)))
	m.take(looked(1, busy(1)))
	var got []string
	for _, r := range m.rows() {
		got = append(got, fmt.Sprintf("%s %g/s %g/s %g %g", r.name, r.packets, r.failing, r.failed, r.dropped))
	}
	if want := "b 50/s 5/s 10 10, c 100/s 0/s 5 5, d 150/s 0/s 0 99, a 0/s 0/s 0 0"; strings.Join(got, ", ") != want {
		t.Errorf("%q, expected %s", got, want)
	}
	looks := map[string]look{}
	for _, l := range m.view(80, 24) {
		if fields := strings.Fields(strings.TrimPrefix(l.text, ">")); len(fields) > 1 {
			looks[fields[0]] = l.look
		}
	}
	if looks["b"] != alarm || looks["c"] != notice || looks["a"] != plain {
		t.Errorf("looks: %v", looks)
	}
	if text := m.view(80, 24)[1].text; !strings.HasPrefix(text, "to host      500 frames/s") {
		t.Error(text)
	}
}

// An appliance that was started anew, or does not answer, is no reason for nonsense.
func TestStartedAnew(t *testing.T) {
	m := model{}
	m.take(looked(0, busy(0)))
	m.take(looked(1, busy(5)))
	m.take(looked(2, busy(0)))
	for _, r := range m.rows() {
		if r.packets != 0 || r.failing != 0 {
			t.Errorf("%+v", r)
		}
	}
	m.take(reading{err: fmt.Errorf("it sleeps")})
	text := ""
	for _, l := range m.view(80, 24) {
		text += l.text + "\n"
	}
	if !strings.Contains(text, "it sleeps") || !strings.Contains(text, "> c") {
		t.Error(text)
	}
}

// The screen is filled and not left at any size, whatever is chosen.
func TestSizes(t *testing.T) {
	var empty, full model
	many := busy(1)
	for i := range 60 {
		name := fmt.Sprint("an SA of a name that is longer than any column ", i)
		many["sa_packets"] = append(many["sa_packets"], sample(float64(i)*1e12, "sa", name))
	}
	full.take(looked(1, many))
	for _, m := range []*model{&empty, &full} {
		for range 2 {
			for width := 0; width < 140; width += 9 {
				for height := range 40 {
					m.move(height - 20)
					lines := m.view(width, height)
					if len(lines) != max(1, height) {
						t.Fatalf("%d by %d: %d lines", width, height, len(lines))
					}
					if m.now.at.IsZero() || m.explains || width < 81 || height < 12 {
						continue
					}
					chosen := false
					for _, l := range lines {
						if chosen = chosen || strings.HasPrefix(l.text, "> "); utf8.RuneCountInString(l.text) > width {
							t.Fatalf("%d columns: %q", width, l.text)
						}
					}
					if !chosen {
						t.Fatalf("%d by %d: the chosen SA is not to be seen", width, height)
					}
				}
			}
			m.turn()
		}
	}
}

func TestNumbers(t *testing.T) {
	for n, want := range map[float64]string{0: "0", 0.25: "0.2", 9.94: "9.9", 9.96: "10", 99999: "99999", 100000: "100k", 1234567: "1235k", 12345678: "12.35M", 1e18: "1000P", 1e22: "much"} {
		if got := short(n); got != want {
			t.Errorf("%g: %s, expected %s", n, got, want)
		}
	}
}
