package bench

import (
	"fmt"
	"slices"
)

// Report is what was measured. Times are in nanoseconds.
type Report struct {
	Machine  Machine            `json:"machine"`
	Quick    bool               `json:"quick"`
	Ratios   map[string]float64 `json:"ratios"` // of Headline at Standard octets: d/a, d/b, c/a
	Rows     []Row              `json:"rows"`
	Compare  []Comparison       `json:"comparisons"` // the ratios of each suite and size
	Attached Attached           `json:"attached"`    // the same between attached veths
	Queues   []Queues           `json:"queues"`
	Latency  []Latency          `json:"latency"`
	Idle     []Idle             `json:"idle"`
	System   System             `json:"system"`
	Replay   Replay             `json:"replay"`
	Table    Table              `json:"table"`
	Peers    []Peer             `json:"peers"`

	Inspected int      `json:"inspected"` // frames that were received and looked at, one by one
	Losses    []string `json:"losses"`    // rounds in which not every frame came out, not counted
	Wrong     []string `json:"wrong"`     // frames that came out other than they should
	Notes     []string `json:"notes"`     // what is left out, and why

	cores []int
	ring  bool
}

// Result is a part's in short, 0 where the part was left out.
type Result struct {
	CPU    float64            `json:"cpu_ns"` // a frame
	Rate   float64            `json:"frames_per_s"`
	Ratios map[string]float64 `json:"ratios"` // of cpu_ns
}

// spread is a median and the quartiles around it.
type spread struct {
	Median float64 `json:"median"`
	Q1     float64 `json:"q1"`
	Q3     float64 `json:"q3"`
}

// spreadOf sorts values.
func spreadOf(values []float64) spread {
	return spread{quantile(values, 0.5), quantile(values, 0.25), quantile(values, 0.75)}
}

// quantile sorts values; of none it is 0.
func quantile(values []float64, q float64) float64 {
	if len(values) == 0 {
		return 0
	}
	slices.Sort(values)
	return values[min(int(q*float64(len(values))), len(values)-1)]
}

// Row is one suite and size on one variant.
type Row struct {
	Suite   string `json:"suite"`
	Size    int    `json:"size"`  // octets that the innermost IPsec header protects
	Frame   int    `json:"frame"` // octets on the wire
	Variant string `json:"variant"`

	CPU        float64 `json:"cpu_ns"` // a frame, of all the process's threads
	CPUSpread  spread  `json:"cpu_ns_spread"`
	Rate       float64 `json:"frames_per_s"`
	RateSpread spread  `json:"frames_per_s_spread"`
	Rounds     int     `json:"rounds"`
	Lost       int     `json:"lost_rounds"`
}

func (c *cell) row() Row {
	row := Row{Suite: c.suite, Size: c.size, Frame: len(c.frames[0]), Variant: c.variant, Rounds: len(c.readings), Lost: c.lost}
	var cpu, rate []float64
	for _, r := range c.readings {
		cpu, rate = append(cpu, r.perFrame()), append(rate, r.rate())
	}
	row.CPUSpread, row.RateSpread = spreadOf(cpu), spreadOf(rate)
	row.CPU, row.Rate = row.CPUSpread.Median, row.RateSpread.Median
	return row
}

// Comparison is one suite and size by variants. A ratio is of medians; without a ring only c/a is there.
type Comparison struct {
	Suite  string             `json:"suite"`
	Size   int                `json:"size"`
	Ratios map[string]float64 `json:"ratios"`
}

// letters are the names that ratios give to variants.
var letters = map[string]string{NullPlain: "a", NullRing: "b", OnPlain: "c", OnRing: "d"}

// divide fills in the ratios.
func (r *Report) divide() {
	type key struct {
		suite string
		size  int
	}
	taken := map[key]map[string]float64{}
	for _, row := range r.Rows {
		k := key{row.Suite, row.Size}
		if taken[k] == nil {
			taken[k] = map[string]float64{}
			r.Compare = append(r.Compare, Comparison{row.Suite, row.Size, map[string]float64{}})
		}
		taken[k][letters[row.Variant]] = row.CPU
	}
	for _, c := range r.Compare {
		t := taken[key{c.Suite, c.Size}]
		for _, pair := range []string{"d/a", "d/b", "c/a"} {
			if over, under := t[pair[:1]], t[pair[2:]]; over > 0 && under > 0 {
				c.Ratios[pair] = over / under
			}
		}
		if c.Suite == Headline && c.Size == Standard {
			r.Ratios = c.Ratios
		}
	}
}

func (r *Report) note(format string, args ...any) {
	r.Notes = append(r.Notes, fmt.Sprintf(format, args...))
}

func (r *Report) lose(c *cell, err error) {
	r.Losses = append(r.Losses, fmt.Sprintf("%s, %d octets, %s: %v", c.suite, c.size, c.variant, err))
}
