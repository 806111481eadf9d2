package test

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"tapsec/internal/lab/rig"
	"tapsec/test/program"
	"tapsec/test/testkit"
)

// TestBench runs the whole measurement once, in a rig of its own: every cell is there, and every frame
// came out as it should. Figures are not judged.
func TestBench(t *testing.T) {
	rig.Require(t)
	cmd := program.Command("bench", "--quick", "--rounds=1", "--json")
	cmd.Stderr = os.Stderr
	cmd.Env = slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "TAPSEC_RIG=") })
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	var report struct {
		Machine struct {
			Processor, Kernel, Go, Engine string
			Cores                         int
			EmptyCall                     struct{ Median float64 } `json:"empty_call_ns"`
		}
		Ratios map[string]float64
		Rows   []struct {
			Suite, Variant string
			Size, Rounds   int
			CPU            float64 `json:"cpu_ns"`
			Rate           float64 `json:"frames_per_s"`
		}
		Queues []struct {
			Queues int
			Times  float64 `json:"times_one_queue"`
		}
		Latency []struct {
			Variant string
			Pace    int     `json:"frames_per_s"`
			P50     float64 `json:"p50_ns"`
			P99     float64 `json:"p99_ns"`
			P999    float64 `json:"p99.9_ns"`
			Frames  int
		}
		Idle []struct {
			Variant string
			CPU     float64 `json:"cpu_us_per_s"`
		}
		System, Replay, Table part
		Notes                 []string
		Inspected             int
		Losses, Wrong         []string
	}
	if err := json.Unmarshal(out, &report); err != nil {
		t.Fatal(err)
	}
	m, variants, sleepers, ratios := report.Machine, 2, 3, []string{"c/a"}
	if m.Engine == "ring" {
		variants, sleepers, ratios = 4, 5, []string{"d/a", "d/b", "c/a"}
	}
	const paces = 2
	if m.Cores < 2 {
		if len(report.Notes) < 2 || len(report.Latency)+len(report.Queues) > 0 {
			t.Errorf("one core: %v, %v, %v", report.Notes, report.Latency, report.Queues)
		}
	} else if len(report.Latency) != paces*sleepers || len(report.Queues) < 2 {
		t.Errorf("%v, %v", report.Latency, report.Queues)
	}
	for _, l := range report.Latency {
		if l.Variant == "" || l.Pace == 0 || l.Frames == 0 || l.P50 <= 0 || l.P99 < l.P50 || l.P999 < l.P99 {
			t.Errorf("%+v", l)
		}
	}
	for _, q := range report.Queues {
		if q.Queues == 0 || q.Times <= 0 {
			t.Errorf("%+v", q)
		}
	}
	if len(report.Idle) != 1+sleepers {
		t.Errorf("%v", report.Idle)
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
	if len(report.Table.Steps) != 5 {
		t.Errorf("%+v", report.Table)
	}
	report.Replay.judge(t, "lines", 4, "tcpdump", "tshark")
	report.Table.judge(t, "", 0)
	if _, err := exec.LookPath("iperf3"); err == nil {
		report.System.judge(t, "merged", 2)
	}
	if report.Inspected == 0 || len(report.Losses)+len(report.Wrong) > 0 {
		t.Errorf("%d frames inspected; losses %v, wrong %v", report.Inspected, report.Losses, report.Wrong)
	}
}

// part is a part of the measurement as programs read it.
type part struct {
	CPU    float64 `json:"cpu_ns"`
	Rate   float64 `json:"frames_per_s"`
	Ratios map[string]float64
	Rows   []struct {
		Output, Way string
		CPU         float64 `json:"cpu_ns"`
	}
	Steps []struct {
		Step string
		CPU  float64 `json:"cpu_ns"`
	}
}

// judge wants that many rows at least, and one for each of these programs that is installed.
func (p part) judge(t *testing.T, of string, rows int, programs ...string) {
	t.Helper()
	if p.CPU <= 0 || p.Rate <= 0 || len(p.Rows) < rows {
		t.Errorf("%+v", p)
	}
	for _, row := range p.Rows {
		if row.CPU <= 0 {
			t.Errorf("%+v", row)
		}
	}
	for _, program := range programs {
		if _, err := exec.LookPath(program); err == nil && p.Ratios[of+"/"+program] <= 0 {
			t.Errorf("no ratio for %s: %+v", program, p)
		}
	}
}

// Whenever bench is ended, it ends at once, and with it every program that it started: none is left, and no file.
func TestBenchEnds(t *testing.T) {
	rig.Require(t)
	testkit.Programs(t, "iperf3")
	for _, signal := range []os.Signal{unix.SIGINT, unix.SIGTERM, unix.SIGKILL} {
		t.Run(signal.String(), func(t *testing.T) {
			temporary := t.TempDir()
			mark := "TAPSEC_BENCH_TEST=" + temporary
			cmd := program.Command("bench", "--quick", "--only=system")
			cmd.Env = append(slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "TAPSEC_RIG=") }), mark, "TMPDIR="+temporary)
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = cmd.Process.Kill() })
			ended := make(chan error, 1)
			go func() { ended <- cmd.Wait() }()
			until(t, "both ends of iperf3 run", func() bool { return running(t, mark, "iperf3") > 1 })
			if err := cmd.Process.Signal(signal); err != nil {
				t.Fatal(err)
			}
			select {
			case <-ended:
			case <-time.After(program.Patience):
				t.Fatal("it does not end")
			}
			until(t, "nothing runs", func() bool { return running(t, mark, "") == 0 })
			if left, err := os.ReadDir(temporary); err != nil || len(left) > 0 {
				t.Errorf("%v, %v", left, err)
			}
		})
	}
}

// running is the number of processes with that variable and that name, or any.
func running(t *testing.T, variable, name string) (n int) {
	t.Helper()
	all, err := filepath.Glob("/proc/[0-9]*/environ")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range all {
		environ, _ := os.ReadFile(file) // others' cannot be read, and some end meanwhile
		called, _ := os.ReadFile(filepath.Join(filepath.Dir(file), "comm"))
		if slices.Contains(strings.Split(string(environ), "\x00"), variable) && strings.HasPrefix(string(called), name) {
			n++
		}
	}
	return n
}

// until waits for something, patiently.
func until(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for begin := time.Now(); !holds(); time.Sleep(10 * time.Millisecond) {
		if time.Since(begin) > program.Patience {
			t.Fatalf("%s: not within %s", what, program.Patience)
		}
	}
}
