package bench

import (
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"tapsec/test/testkit"
)

// A capture is told of in each way and read by each peer, as often as by the others.
func TestReplay(t *testing.T) {
	testkit.Programs(t, "tcpdump", "tshark")
	r := newReport(nil)
	if err := r.measureReplay(effort{rounds: 2, replay: time.Minute}); err != nil {
		t.Fatal(err)
	}
	var outputs []string
	for _, p := range r.Replay.Rows {
		outputs = append(outputs, p.Output)
		if p.Rounds != 2 || p.CPU <= 0 || p.Rate <= 0 {
			t.Errorf("%+v", p)
		}
	}
	if !slices.Equal(outputs, []string{Lines, Objects, Copied, Summed, Tcpdump, Tshark}) || len(r.Notes) > 0 || len(r.Peers) != 2 {
		t.Errorf("%v, %v, %+v", outputs, r.Notes, r.Peers)
	}
	if r.Replay.CPU != r.Replay.Rows[0].CPU || r.Replay.Ratios["lines/tcpdump"] <= 0 || r.Replay.Ratios["lines/tshark"] <= 0 {
		t.Errorf("%+v", r.Replay)
	}
}

// A peer that does not decrypt is no peer.
func TestReaderIsJudged(t *testing.T) {
	testkit.Programs(t, "tshark")
	text, _, err := replayCapture(replayed)
	if err != nil {
		t.Fatal(err)
	}
	_, others, err := replayCapture(1)
	if err != nil {
		t.Fatal(err)
	}
	r := newReport(nil)
	all, closed, err := r.readers(text, others.SAs)
	if err != nil {
		t.Fatal(err)
	}
	defer closed()
	if slices.ContainsFunc(all, func(p *reader) bool { return p.Name == Tshark }) || !strings.Contains(strings.Join(r.Notes, " "), "expected 16384") {
		t.Errorf("%v", r.Notes)
	}
}

// What is not installed, or is something else, is left out with what to do, and the rest is there.
func TestWithoutPeers(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("PATH", dir)
	t.Setenv(wireguardVar, "")
	r := newReport(nil)
	if err := r.measureReplay(effort{rounds: 1}); err != nil {
		t.Fatal(err)
	}
	if err := r.measureSystem(effort{rounds: 1}); err != nil {
		t.Fatal(err)
	}
	if len(r.Replay.Rows) != 4 || len(r.Replay.Ratios)+len(r.Peers)+len(r.System.Rows) > 0 {
		t.Errorf("%+v", r)
	}
	for i, install := range []string{"apt-get install tcpdump", "apt-get install tshark", "apt-get install iperf3"} {
		if len(r.Notes) != 3 || !strings.Contains(r.Notes[i], install) {
			t.Errorf("%q, expected %s", r.Notes, install)
		}
	}
	other := filepath.Join(dir, "other")
	if err := os.WriteFile(other, []byte("#!/bin/sh\necho other 1\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv(wireguardVar, other)
	if _, ok := r.peer(WireGuard); ok || !strings.Contains(r.Notes[3], `expected wireguard-go, found "other 1"`) || !strings.Contains(r.Notes[3], "go install") {
		t.Errorf("%q", r.Notes)
	}
}

// What programs read of the parts, by the names of docs/json.md.
func TestPartsAsJSON(t *testing.T) {
	r := newReport(nil)
	r.System.Rows = []SystemRow{{Way: Merged, CPU: 300, Rate: 3}, {Way: Unmerged, CPU: 600}, {Way: UDP, CPU: 150}, {Way: WireGuard, CPU: 200}}
	r.System.divide()
	r.Replay.Rows = []ReplayRow{{Output: Lines, CPU: 100, Rate: 5}, {Output: Tcpdump, CPU: 200}, {Output: Tshark, CPU: 1000}}
	r.Replay.divide()
	r.Table.Steps = []TableStep{{Step: ReadTable, CPU: 2}, {Step: ReloadTable, CPU: 3}, {Step: Frame, CPU: 500}}
	r.Table.sum()
	text, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	var said map[string]json.RawMessage
	if err := json.Unmarshal(text, &said); err != nil {
		t.Fatal(err)
	}
	for part, want := range map[string]Result{
		"system": {300, 3, map[string]float64{"unmerged/merged": 2, "udp/merged": 0.5, "udp/wireguard-go": 0.75, "merged/wireguard-go": 1.5, "unmerged/wireguard-go": 3}},
		"replay": {100, 5, map[string]float64{"lines/tcpdump": 0.5, "lines/tshark": 0.1}},
		"table":  {500, 2e6, map[string]float64{"reload/read": 1.5}},
	} {
		var got struct {
			CPU    float64            `json:"cpu_ns"`
			Rate   float64            `json:"frames_per_s"`
			Ratios map[string]float64 `json:"ratios"`
		}
		if err := json.Unmarshal(said[part], &got); err != nil || got.CPU != want.CPU || got.Rate != want.Rate || !maps.Equal(got.Ratios, want.Ratios) {
			t.Errorf("%s: %s, expected %+v: %v", part, said[part], want, err)
		}
	}
}

// The parts that others read fit a terminal, with figures as large as they become.
func TestPartsAsText(t *testing.T) {
	const much = 123456
	r, most := newReport(nil), spread{much, much, much}
	r.System.Rows = []SystemRow{{Merged, much, most, much, much, most, much, 1}, {Unmerged, much, most, much, much, most, much, 1}, {WireGuard, much, most, much, much, most, much, 1}}
	r.System.divide()
	r.Replay.Rows = []ReplayRow{{Lines, Standard, much, most, 10 * much, most, 1}, {Tshark, Standard, much, most, 10 * much, most, 1}}
	r.Replay.divide()
	r.note("%s", strings.Repeat("what is to be done ", 10))
	var out strings.Builder
	if err := r.WriteText(&out); err != nil {
		t.Fatal(err)
	}
	_, text, _ := strings.Cut(out.String(), "Stack to stack")
	for line := range strings.Lines(text) {
		if len(line) > 81 {
			t.Errorf("%d columns: %s", len(line)-1, line)
		}
	}
	if !strings.Contains(text, "ratio to\nwireguard-go") || !strings.Contains(text, "tshark") {
		t.Error(text)
	}
}
