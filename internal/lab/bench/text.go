package bench

import (
	"fmt"
	"io"
	"text/tabwriter"

	"tapsec/internal/wrap"
)

// WriteText writes the report for people.
func (r *Report) WriteText(out io.Writer) error {
	m := r.Machine
	fmt.Fprintf(out, "%s, %d cores, Linux %s (page-table isolation: %s), %s\n", m.Processor, m.Cores, m.Kernel, m.Isolation, m.Go)
	fmt.Fprintf(out, "an empty system call: %.0f ns (%.0f-%.0f)\nengine %s: %s\n", m.EmptyCall.Median, m.EmptyCall.Q1, m.EmptyCall.Q3, m.Engine, m.EngineWhy)
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	section(w, "Nanoseconds of the processor for a frame, one core: median (quartiles)", "suite\tpayload\ta null-plain\tb null-ring\tc plain\td ring\td/a\td/b\tc/a\td frames/s\t\n", r.Compare, func(c Comparison) { r.writeLine(w, c) })
	r.writeAttached(w)
	section(w, "Several queues, a core each, filled by another core: 1400 octets, aes128gcm16", "queues\tframes/s\ttimes one queue\tchosen by\t\n", r.Queues, func(q Queues) {
		fmt.Fprintf(w, "%d\t%.0f (%.0f-%.0f)\t%.2f\t%s\t\n", q.Queues, q.Rate, q.RateSpread.Q1, q.RateSpread.Q3, q.Times, orDash(q.Queues > 1, q.Steering))
	})
	section(w, "Microseconds from sending a frame of 1400 octets until the host has it; sender on another core", "frames/s\t\tp50\tp99\tp99.9\tframes\t\n", r.Latency, func(l Latency) {
		fmt.Fprintf(w, "%d\t%s\t%.1f\t%.1f\t%.1f\t%d\t\n", l.Pace, l.Variant, l.P50/1000, l.P99/1000, l.P999/1000, l.Frames)
	})
	section(w, "Microseconds of the processor in a second without frames, the whole process", "", r.Idle, func(i Idle) {
		fmt.Fprintf(w, "%s\t%.0f\t\n", i.Variant, i.CPU)
	})
	r.writeSystem(w)
	r.writeReplay(w)
	r.writeTable(w)
	fmt.Fprintf(w, "\n%d frames were looked at one by one: %d wrong. Rounds that lost frames: %d.\n",
		r.Inspected, len(r.Wrong), len(r.Losses))
	for _, p := range r.Peers {
		fmt.Fprintln(w, wrap.Text(fmt.Sprintf("%s is %s, %s", p.Name, p.Program, p.Version), 2, wrap.Width))
	}
	for _, said := range [][]string{r.Notes, r.Losses, r.Wrong} {
		for _, line := range said {
			fmt.Fprintln(w, wrap.Text(line, 2, wrap.Width))
		}
	}
	return w.Flush()
}

func (r *Report) writeLine(w io.Writer, c Comparison) {
	by := map[string]Row{}
	for _, row := range r.Rows {
		if row.Suite == c.Suite && row.Size == c.Size {
			by[row.Variant] = row
		}
	}
	fmt.Fprintf(w, "%s\t%d\t", c.Suite, c.Size)
	for _, variant := range []string{NullPlain, NullRing, OnPlain, OnRing} {
		row, ok := by[variant]
		fmt.Fprintf(w, "%s\t", orDash(ok, fmt.Sprintf("%.0f (%.0f-%.0f)", row.CPU, row.CPUSpread.Q1, row.CPUSpread.Q3)))
	}
	for _, pair := range []string{"d/a", "d/b", "c/a"} {
		ratio, ok := c.Ratios[pair]
		fmt.Fprintf(w, "%s\t", orDash(ok, fmt.Sprintf("%.2f", ratio)))
	}
	row, ok := by[OnRing]
	fmt.Fprintf(w, "%s\t\n", orDash(ok, fmt.Sprintf("%.0f", row.Rate)))
}

// section writes a table with its title and the names of its columns, if it has rows.
func section[T any](w io.Writer, title, columns string, rows []T, line func(T)) {
	if len(rows) == 0 {
		return
	}
	fmt.Fprintf(w, "\n%s\n\n%s", title, columns)
	for _, row := range rows {
		line(row)
	}
}

// orDash is a cell of a table that may be empty.
func orDash(there bool, text string) string {
	if there {
		return text
	}
	return "-"
}
