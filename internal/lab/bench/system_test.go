package bench

import (
	"encoding/json"
	"testing"
	"time"

	"tapsec/internal/lab/rig"
	"tapsec/test/testkit"
)

// TestSystem carries flows from stack to stack: a frame's time is that of processors and between two bounds that only
// a wrong unit leaves, and the object says so.
func TestSystem(t *testing.T) {
	rig.Require(t)
	testkit.Programs(t, "iperf3")
	if err := rig.Setup(); err != nil {
		t.Fatal(err)
	}
	all, err := cores()
	if err != nil {
		t.Fatal(err)
	}
	r := newReport(all)
	if err := r.measureSystem(effort{rounds: 1, system: time.Minute / 8}); err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	var said struct {
		System struct {
			Rows []struct {
				Way  string  `json:"way"`
				CPU  float64 `json:"cpu_ns"`
				Own  float64 `json:"own_ns"`
				Rate float64 `json:"frames_per_s"`
			} `json:"rows"`
			Ratios map[string]float64 `json:"ratios"`
		} `json:"system"`
	}
	if err := json.Unmarshal(text, &said); err != nil || len(said.System.Rows) < 3 || said.System.Ratios["unmerged/merged"] <= 0 {
		t.Fatalf("%v, %s", err, text)
	}
	for _, row := range said.System.Rows {
		if row.CPU < 200 || row.CPU > 1e7 || row.Own <= 0 || row.Own >= row.CPU || row.Rate < 10 || row.CPU*row.Rate > 1e9*float64(len(all))*1.5 {
			t.Errorf("%+v", row)
		}
	}
	if _, installed := r.peer(WireGuard); !installed {
		rig.Missing(t, r.Notes[0])
	}
	if len(said.System.Rows) != 4 || said.System.Ratios["merged/wireguard-go"] <= 0 || len(r.Notes) > 0 {
		t.Errorf("%s", text)
	}
}
