package test

import (
	"encoding/json"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"tapsec/rig"
)

// TestBench runs the whole measurement once, in a rig of its own: every cell is there, and every frame
// came out as it should. Figures are not judged.
func TestBench(t *testing.T) {
	rig.Require(t)
	cmd := exec.Command(program, "bench", "--quick", "--rounds=1", "--json")
	cmd.Stderr = os.Stderr
	cmd.Env = slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "TAPSEC_RIG=") })
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	var report struct {
		Machine struct {
			Processor, Kernel, Go, Engine string
			EmptyCall                     struct{ Median float64 } `json:"empty_call_ns"`
		}
		Ratios map[string]float64
		Rows   []struct {
			Suite, Variant string
			Size, Rounds   int
			CPU            float64 `json:"cpu_ns"`
			Rate           float64 `json:"frames_per_s"`
		}
		Inspected     int
		Losses, Wrong []string
	}
	if err := json.Unmarshal(out, &report); err != nil {
		t.Fatal(err)
	}
	m, variants, ratios := report.Machine, 2, []string{"c/a"}
	if m.Engine == "ring" {
		variants, ratios = 4, []string{"d/a", "d/b", "c/a"}
	}
	if m.Processor == "" || m.Kernel == "" || m.Go == "" || m.EmptyCall.Median <= 0 {
		t.Errorf("%+v", m)
	}
	for _, name := range ratios {
		if report.Ratios[name] <= 0 {
			t.Errorf("no ratio %s in %v", name, report.Ratios)
		}
	}
	const suites, sizes = 6, 4
	if len(report.Rows) != suites*sizes*variants {
		t.Errorf("%d rows", len(report.Rows))
	}
	for _, r := range report.Rows {
		if r.Suite == "" || r.Variant == "" || r.Size == 0 || r.Rounds == 0 || r.CPU <= 0 || r.Rate <= 0 {
			t.Errorf("%+v", r)
		}
	}
	if report.Inspected == 0 || len(report.Losses)+len(report.Wrong) > 0 {
		t.Errorf("%d frames inspected; losses %v, wrong %v", report.Inspected, report.Losses, report.Wrong)
	}
}
