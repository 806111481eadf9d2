//go:build linux

package appliance

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"text/tabwriter"
	"time"

	"tapsec/status"
	"tapsec/tap"
	"tapsec/transport"
)

// Line is the Summary on one line.
func (s *Summary) Line() string {
	line := fmt.Sprintf("%s to %s: %d frames", s.Wire, s.Host, s.Moved.ToHost.Out)
	if s.Adapter != nil {
		line += fmt.Sprintf(", %d failed", s.Adapter.Failed())
	}
	if s.Transport != nil {
		line += fmt.Sprintf(", %d dropped", s.Transport.Verdicts[transport.Drop.String()])
	}
	return line + fmt.Sprintf("; back: %d frames", s.Moved.ToWire.Out)
}

// WriteText writes the Summary for people.
func (s *Summary) WriteText(out io.Writer) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "ran for %s\n\n", s.Ran.Round(time.Millisecond))
	fmt.Fprint(w, "direction\tframes in\tbytes in\tframes out\tbytes out\tkept\thost_down\ttoo_long\trefused\tretries\toversize\tuncut\n")
	writeMoved(w, s.Wire+" to "+s.Host, s.Moved.ToHost)
	writeMoved(w, s.Host+" to "+s.Wire, s.Moved.ToWire)
	if s.Adapter != nil {
		writeAdapter(w, s.Adapter)
	}
	if s.Transport != nil {
		writeTransport(w, s.Transport, s.SAs)
	}
	fmt.Fprint(w, "\nkernel drops\tqueue full\trefused by the host stack\n")
	for _, d := range s.Drops {
		writeDrops(w, d)
	}
	return w.Flush()
}

// writeAdapter is the NIC's account.
func writeAdapter(w io.Writer, a *Adapter) {
	fmt.Fprint(w, "\nstatus\tframes\n")
	for code := range status.Code(status.NumCodes) {
		if n := a.Code(code); n > 0 {
			fmt.Fprintf(w, "%s\t%d%s\n", code, n, notes[code])
		}
	}
	fmt.Fprint(w, "\nreason\tframes\n")
	for _, r := range status.Reasons() {
		if n := a.Reason(r); n > 0 {
			fmt.Fprintf(w, "%s\t%d\t%s\n", r.Qualified(), n, r.Sentence())
		}
	}
}

// writeTransport is the transport's account. That replay protection is off
// stands on the SA's line.
func writeTransport(w io.Writer, s *transport.Summary, states []transport.SAState) {
	fmt.Fprint(w, "\ntransport\tframes\n")
	for v := transport.Deliver; v <= transport.Drop; v++ {
		fmt.Fprintf(w, "%s\t%d\n", v, s.Verdicts[v.String()])
	}
	for _, r := range transport.Reasons() {
		if n := s.Reasons[r.String()]; n > 0 {
			fmt.Fprintf(w, "  %s\t%d\t%s\n", r.Qualified(), n, r.Sentence())
		}
	}
	if len(states) == 0 {
		return
	}
	slices.SortFunc(states, func(a, b transport.SAState) int { return cmp.Compare(a.Name, b.Name) })
	fmt.Fprint(w, "\nSA\tpackets\ttop\tseen\tgaps\treplays\tlate\twindow\n")
	for _, st := range states {
		window := fmt.Sprint(st.Window.Size)
		if st.Window.Off {
			window = "REPLAY PROTECTION IS OFF"
		}
		fmt.Fprintf(w, "%s\t%d\t%d\t%d\t%d\t%d\t%d\t%s\n", st.Name, st.Tally.Packets, st.Window.Top, st.Window.Seen,
			st.Window.Gaps, st.Window.Replays, st.Window.Late, window)
	}
}

// notes say what a status alone does not.
var notes = map[status.Code]string{status.Success: "\tincluding frames left alone"}

func writeMoved(w io.Writer, name string, t tap.Tally) {
	fmt.Fprintf(w, "%s\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\n",
		name, t.In, t.InBytes, t.Out, t.OutBytes, t.Kept, t.HostDown, t.TooLong, t.Refused, t.Retries, t.Oversize, t.Uncut)
}

// writeDrops writes an interface's tx drops, when the appliance did not keep up, and its
// rx drops, for which the network stack had no use.
func writeDrops(w io.Writer, d KernelDrops) {
	if d.Err != nil {
		fmt.Fprintf(w, "%s\t-\t-\t%v\n", d.Interface, d.Err)
		return
	}
	fmt.Fprintf(w, "%s\t%d\t%d\n", d.Interface, d.Tx, d.Rx)
}
