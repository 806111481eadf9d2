package bench

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os/exec"
	"strings"
	"time"

	"tapsec/internal/lab/hosts"
	"tapsec/tap"
)

// System is what the whole way costs, from one stack to another: one TCP flow of iperf3 through two hosts, sealed
// by both a tunnel and transport mode.
type System struct {
	Rows   []SystemRow        `json:"rows"`
	Ratios map[string]float64 `json:"ratios"` // unmerged/merged and udp/merged, of cpu_ns
}

// SystemRow is one way of passing packets between transport and stack. A frame is a segment of the flow.
type SystemRow struct {
	Way string `json:"way"`

	CPU        float64 `json:"cpu_ns"` // a frame, of this process with both hosts, and of both ends of iperf3
	CPUSpread  spread  `json:"cpu_ns_spread"`
	Own        float64 `json:"own_ns"` // of it, this process
	Rate       float64 `json:"frames_per_s"`
	RateSpread spread  `json:"frames_per_s_spread"`
	Again      float64 `json:"retransmits"` // a round, the median
	Rounds     int     `json:"rounds"`
}

// The ways.
const (
	Merged   = "merged"   // TSO, USO and GRO between transport and stack
	Unmerged = "unmerged" // each packet by itself
	UDP      = "udp"      // merged, and the tunnel in UDP, whose packets pass merged on the wire, too
)

// flow is one way, and its rounds so far.
type flow struct {
	way      string
	unmerged tap.Merging
	udp      bool

	cpu, own, rate, again []float64
}

// measureSystem lets the ways alternate, on all processors. Without iperf3 it is left out, which a note says.
func (r *Report) measureSystem(e effort) (err error) {
	if _, err := exec.LookPath("iperf3"); err != nil {
		r.note("system is left out, since it wants iperf3: apt-get install iperf3")
		return nil
	}
	if err := confine(r.cores...); err != nil { // hosts, and both ends of the flow
		return err
	}
	flows := []*flow{{way: Merged}, {way: Unmerged, unmerged: tap.AllMerging}, {way: UDP, udp: true}}
	begin := time.Now()
	for sweep := 0; e.more(sweep, begin, e.system); sweep++ {
		for _, n := range rand.Perm(len(flows)) {
			if err := flows[n].round(e.system / 8); err != nil {
				return fmt.Errorf("%s: %w", flows[n].way, err)
			}
		}
	}
	for _, f := range flows {
		r.System.Rows = append(r.System.Rows, f.row())
	}
	r.System.Ratios["unmerged/merged"] = r.System.Rows[1].CPU / r.System.Rows[0].CPU
	r.System.Ratios["udp/merged"] = r.System.Rows[2].CPU / r.System.Rows[0].CPU
	return nil
}

// listening is when iperf3's server is ready, by its words.
const listening = "listening"

// round puts two hosts up, and carries a flow from a to b.
func (f *flow) round(long time.Duration) (err error) {
	pair, err := hosts.NewPair(f.unmerged, f.udp)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, pair.Close()) }()
	server := exec.Command("iperf3", "-s", "-1", "--forceflush")
	said, err := server.StdoutPipe()
	if err == nil {
		err = pair.Do("b", server.Start)
	}
	if err != nil {
		return err
	}
	defer func() { _ = server.Process.Kill() }()
	lines := bufio.NewReader(said)
	for line := ""; !strings.Contains(line, listening); {
		if line, err = lines.ReadString('\n'); err != nil {
			return fmt.Errorf("iperf3 -s: expected the word %q: %w", listening, err)
		}
	}
	client := exec.Command("iperf3", "-J", "-c", hosts.There, "-t", fmt.Sprint(max(1, int(long.Seconds()))))
	var report strings.Builder
	client.Stdout = &report
	own, wall := processTime(), wallTime()
	if err = pair.Do("a", client.Start); err == nil {
		err = client.Wait()
	}
	own, wall = processTime()-own, wallTime()-wall
	if err == nil {
		_, _ = io.Copy(io.Discard, lines)
		err = server.Wait()
	}
	if err != nil {
		return fmt.Errorf("iperf3: %w: %.200s", err, report.String())
	}
	others := time.Duration(0)
	for _, p := range []*exec.Cmd{server, client} {
		others += p.ProcessState.UserTime() + p.ProcessState.SystemTime()
	}
	return f.read(report.String(), own, others, wall)
}

// read takes iperf3's report to pieces.
func (f *flow) read(report string, own, others, wall time.Duration) error {
	var r struct {
		Start struct {
			MSS float64 `json:"tcp_mss_default"`
		} `json:"start"`
		End struct {
			Sent struct {
				Bytes       float64 `json:"bytes"`
				Retransmits float64 `json:"retransmits"`
			} `json:"sum_sent"`
		} `json:"end"`
	}
	if err := json.Unmarshal([]byte(report), &r); err != nil || r.Start.MSS == 0 || r.End.Sent.Bytes == 0 {
		return fmt.Errorf("iperf3 -J: expected bytes and tcp_mss_default, found %.200s: %w", report, err)
	}
	frames := r.End.Sent.Bytes / r.Start.MSS
	f.cpu, f.own = append(f.cpu, float64(own+others)/frames), append(f.own, float64(own)/frames)
	f.rate, f.again = append(f.rate, frames/wall.Seconds()), append(f.again, r.End.Sent.Retransmits)
	return nil
}

func (f *flow) row() SystemRow {
	row := SystemRow{Way: f.way, CPUSpread: spreadOf(f.cpu), Own: spreadOf(f.own).Median, RateSpread: spreadOf(f.rate),
		Again: spreadOf(f.again).Median, Rounds: len(f.cpu)}
	row.CPU, row.Rate = row.CPUSpread.Median, row.RateSpread.Median
	return row
}

func (r *Report) writeSystem(w io.Writer) {
	if len(r.System.Rows) == 0 {
		return
	}
	fmt.Fprint(w, "\nStack to stack, one TCP flow in a tunnel and transport mode: nanoseconds of the processor for a frame\n\n")
	fmt.Fprintln(w, "\tns\tof the appliance\tframes/s\tretransmits\t")
	for _, s := range r.System.Rows {
		fmt.Fprintf(w, "%s\t%.0f (%.0f-%.0f)\t%.0f\t%.0f\t%.0f\t\n", s.Way, s.CPU, s.CPUSpread.Q1, s.CPUSpread.Q3, s.Own, s.Rate, s.Again)
	}
}
