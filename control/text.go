package control

import (
	"cmp"
	"fmt"
	"io"
	"iter"
	"maps"
	"math"
	"net/netip"
	"slices"
	"strings"
	"text/tabwriter"

	"tapsec/internal/wrap"
)

// The documents as text for people, in columns that fit a terminal.

// WriteText writes a line for each SA. Addresses have no room there.
func (p Page) WriteText(out io.Writer) error { return writeSAs(out, true, p.SAs) }

// WriteList writes the lines of a Page for a list of any length, a thousand at a time, whose columns
// fit these.
func WriteList(out io.Writer, all iter.Seq2[SA, error]) error {
	var some []SA
	first := true
	for s, err := range all {
		if err != nil {
			return err
		}
		if some = append(some, s); len(some) == maxPage {
			if err := writeSAs(out, first, some); err != nil {
				return err
			}
			some, first = some[:0], false
		}
	}
	if len(some) == 0 && !first {
		return nil
	}
	return writeSAs(out, first, some)
}

func writeSAs(out io.Writer, header bool, sas []SA) error {
	w := columns(out)
	if header {
		fmt.Fprintln(w, "NAME\tSPI\tIS\tMODE\tDIR\tSUITE\tNIC\tFROM")
	}
	for _, s := range sas {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", wrap.Shorten(s.Name, 18), s.SPI, s.Protocol, s.Mode, s.Direction,
			wrap.Shorten(s.Suite, 17), either(s.Offloaded, "yes", "no"), s.Origin)
	}
	return w.Flush()
}

// WriteText writes a line for each SA, or that there is none.
func (a Added) WriteText(out io.Writer) error {
	if len(a.SAs) == 0 {
		_, err := fmt.Fprintln(out, "no SA was missing")
		return err
	}
	return Page{SAs: a.SAs}.WriteText(out)
}

// WriteText writes a line for each field.
func (s SA) WriteText(out io.Writer) error {
	held := "does not hold it"
	if s.Offloaded {
		held = fmt.Sprintf("holds it, handle %d", s.Handle)
	}
	w := columns(out)
	for _, line := range [][2]string{
		{"name", s.Name}, {"protocol", s.Protocol.String()}, {"spi", s.SPI.String()},
		{"dst", addressText(s.Dst)}, {"src", addressText(s.Src)},
		{"mode", s.Mode}, {"direction", s.Direction}, {"suite", s.Suite}, {"esn", either(s.ESN, "yes", "no")},
		{"encap", either(s.Encap, "in UDP", "no")}, {"partner", cmp.Or(s.Partner, "none")},
		{"offload", s.Offload + "; the NIC " + held}, {"from", "the " + s.Origin},
	} {
		fmt.Fprintf(w, "%s\t%s\n", line[0], line[1])
	}
	return w.Flush()
}

// addressText is an SA's address, which may have none.
func addressText(a netip.Addr) string {
	if !a.IsValid() {
		return "any"
	}
	return a.String()
}

// WriteText writes a line for each of them.
func (c Capabilities) WriteText(out io.Writer) error {
	on := func(is bool) string { return either(is, "on", "off") }
	room := "no bound"
	if c.Capacity > 0 {
		room = fmt.Sprint(c.Capacity)
	}
	w := columns(out)
	fmt.Fprintf(w, "profile\t%s\noffload\t%s; ah %s, esp %s\n", c.Profile, on(c.Active), on(c.AH), on(c.ESP))
	fmt.Fprintf(w, "bundles\t%d of %s%s\n", c.Bundles, room, either(c.UnderPressure, ", under pressure", ""))
	for _, name := range slices.Sorted(maps.Keys(c.Flags)) {
		fmt.Fprintf(w, "%s\t%s\n", name, either(c.Flags[name], "yes", "no"))
	}
	label := "algorithms"
	for part := range slices.Chunk(c.Algorithms, 4) {
		fmt.Fprintf(w, "%s\t%s\n", label, strings.Join(part, " "))
		label = ""
	}
	return w.Flush()
}

// WriteText writes a line for each sample that is not 0.
func (c Counters) WriteText(out io.Writer) error {
	w := columns(out)
	for _, c := range c.Counters {
		for _, s := range c.Samples {
			if s.Value == 0 {
				continue
			}
			var labels []string
			for _, name := range slices.Sorted(maps.Keys(s.Labels)) {
				labels = append(labels, s.Labels[name])
			}
			fmt.Fprintf(w, "%s\t%s\t%.0f%s\n", strings.TrimPrefix(c.Name, "tapsec_"), wrap.Shorten(strings.Join(labels, " "), 32), s.Value, spread(&s))
		}
	}
	return w.Flush()
}

// spread says what half of a histogram's values did not exceed, and 99 in a
// hundred.
func spread(s *Sample) string {
	if s.Histogram == nil {
		return ""
	}
	within := func(part float64) string {
		bound := s.Quantile(part)
		if math.IsInf(bound, 1) {
			return "beyond"
		}
		return fmt.Sprintf("%.3g ms", 1000*bound)
	}
	return fmt.Sprintf("; half %s, 99 %% %s", within(0.5), within(0.99))
}

func columns(out io.Writer) *tabwriter.Writer { return tabwriter.NewWriter(out, 0, 0, 2, ' ', 0) }

func either(is bool, yes, no string) string {
	if is {
		return yes
	}
	return no
}
