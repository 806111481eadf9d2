package bench

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"tapsec/internal/lab/hosts"
	"tapsec/internal/lab/rig"
	"tapsec/tap"
)

// System is what the whole way costs, from one stack to another: one TCP flow of iperf3 through two hosts, sealed
// by both a tunnel and transport mode, or by a peer. The result is Merged's.
type System struct {
	Result
	Rows []SystemRow `json:"rows"`
}

// SystemRow is one way of passing packets between transport and stack, or a peer. A frame is a segment of the flow.
type SystemRow struct {
	Way string `json:"way"`

	CPU        float64 `json:"cpu_ns"` // a frame, of what seals and opens, and of both ends of iperf3
	CPUSpread  spread  `json:"cpu_ns_spread"`
	Own        float64 `json:"own_ns"` // of it, what seals and opens
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

// carrier is two hosts, a and b, between whose stacks packets go sealed.
type carrier interface {
	Do(host string, f func() error) error // in its namespace
	There() string                        // b's address, inside
	Used() time.Duration                  // what sealing and opening had of the processor
	Close() error
}

// pair is ours, in this process.
type pair struct{ *hosts.Pair }

func (pair) There() string       { return hosts.There }
func (pair) Used() time.Duration { return processTime() }

// flow is one way, and its rounds so far.
type flow struct {
	way  string
	open func() (carrier, error)
	left bool // out, since it failed

	cpu, own, rate, again []float64
}

func ours(way string, unmerged tap.Merging, udp bool) *flow {
	return &flow{way: way, open: func() (carrier, error) {
		p, err := hosts.NewPair(unmerged, udp)
		return pair{p}, err
	}}
}

// measureSystem lets the ways alternate, on all processors. Without iperf3 it is left out, which a note says.
func (r *Report) measureSystem(e effort) (err error) {
	iperf3, ok := r.peer(Iperf3)
	if !ok {
		return nil
	}
	if err := confine(r.cores...); err != nil { // hosts, and both ends of the flow
		return err
	}
	flows := []*flow{ours(Merged, 0, false), ours(Unmerged, tap.AllMerging, false), ours(UDP, 0, true)}
	if p, ok := r.peer(WireGuard); ok {
		if err := rig.OwnDir(sockets); err != nil {
			return err
		}
		flows = append(flows, &flow{way: WireGuard, open: func() (carrier, error) { return newWireguard(p.Program) }})
	}
	for i := range e.turns(len(flows), e.system) {
		f := flows[i]
		if f.left {
			continue
		}
		err := f.round(iperf3.Program, e.system/16)
		if err != nil && f.way != WireGuard {
			return fmt.Errorf("%s: %w", f.way, err)
		}
		if err != nil {
			r.without(f.way, err)
			f.left = true
		}
	}
	for _, f := range slices.DeleteFunc(flows, func(f *flow) bool { return f.left }) {
		r.System.Rows = append(r.System.Rows, f.row())
	}
	r.System.divide()
	return nil
}

func (s *System) divide() {
	merged := s.Rows[0]
	s.CPU, s.Rate = merged.CPU, merged.Rate
	for _, row := range s.Rows[1:] {
		if row.Way != WireGuard {
			s.Ratios[row.Way+"/"+Merged] = row.CPU / merged.CPU
			continue
		}
		for _, own := range s.Rows[:len(s.Rows)-1] {
			s.Ratios[own.Way+"/"+WireGuard] = own.CPU / row.CPU
		}
	}
}

// listening is when iperf3's server is ready, by its words.
const listening = "listening"

// round puts two hosts up, and carries a flow from a to b.
func (f *flow) round(iperf3 string, long time.Duration) (err error) {
	c, err := f.open()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	ctx, cancel := context.WithTimeout(context.Background(), long+patience)
	defer cancel()
	server := bound(ctx, iperf3, "-s", "-1", "--forceflush")
	said, err := server.StdoutPipe()
	if err == nil {
		err = c.Do("b", server.Start)
	}
	if err != nil {
		return err
	}
	defer func() { cancel(); _ = server.Wait() }()
	lines := bufio.NewReader(said)
	for line := ""; !strings.Contains(line, listening); {
		if line, err = lines.ReadString('\n'); err != nil {
			return fmt.Errorf("iperf3 -s: expected the word %q: %w", listening, err)
		}
	}
	client := bound(ctx, iperf3, "-J", "-c", c.There(), "-t", fmt.Sprint(max(1, int(long.Seconds()))))
	var report strings.Builder
	client.Stdout = &report
	own, wall := c.Used(), wallTime()
	if err = c.Do("a", client.Start); err == nil {
		err = client.Wait()
	}
	t := took{c.Used() - own, wallTime() - wall}
	if err == nil {
		_, _ = io.Copy(io.Discard, lines)
		err = server.Wait()
	}
	if err != nil {
		return fmt.Errorf("iperf3: %w: %.200s", err, report.String())
	}
	return f.read(report.String(), t, spent(server, client))
}

// read takes iperf3's report to pieces.
func (f *flow) read(report string, t took, others time.Duration) error {
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
	f.cpu, f.own = append(f.cpu, float64(t.cpu+others)/frames), append(f.own, float64(t.cpu)/frames)
	f.rate, f.again = append(f.rate, frames/t.wall.Seconds()), append(f.again, r.End.Sent.Retransmits)
	return nil
}

func (f *flow) row() SystemRow {
	row := SystemRow{Way: f.way, CPUSpread: spreadOf(f.cpu), Own: spreadOf(f.own).Median, RateSpread: spreadOf(f.rate),
		Again: spreadOf(f.again).Median, Rounds: len(f.cpu)}
	row.CPU, row.Rate = row.CPUSpread.Median, row.RateSpread.Median
	return row
}

func (r *Report) writeSystem(w io.Writer) {
	section(w, "Stack to stack, one TCP flow: nanoseconds of the processor for a frame, of all\nprocesses; tapsec with a tunnel (udp: in UDP) and transport mode; ratio to\nwireguard-go", "\tns\thosts\tframes/s\tretransmits\tratio\t\n", r.System.Rows, func(s SystemRow) {
		ratio, ok := r.System.Ratios[s.Way+"/"+WireGuard]
		fmt.Fprintf(w, "%s\t%.0f (%.0f-%.0f)\t%.0f\t%.0f\t%.0f\t%s\t\n", s.Way, s.CPU, s.CPUSpread.Q1, s.CPUSpread.Q3, s.Own, s.Rate, s.Again,
			orDash(ok, fmt.Sprintf("%.2f", ratio)))
	})
}
