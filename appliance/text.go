//go:build linux

package appliance

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"time"

	"tapsec/internal/wrap"
	"tapsec/status"
	"tapsec/transport"
)

// Line is the Summary in one line.
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
	w := wrap.NewColumns(out)
	fmt.Fprintf(w, "ran for %s\n\n", s.Ran.Round(time.Millisecond))
	writeMoved(w, s)
	if s.Adapter != nil {
		writeAdapter(w, s.Adapter)
	}
	if s.Transport != nil {
		writeTransport(w, s.Transport, s.SAs)
		if s.Untold > 0 {
			fmt.Fprintf(w, "and %d more SAs\n", s.Untold)
		}
	}
	fmt.Fprint(w, "\nkernel drops\tqueue full\trefused by the host stack\n")
	for _, d := range s.Drops {
		writeDrops(w, d)
	}
	return w.Flush()
}

// writeAdapter writes the NIC's account.
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

// writeTransport writes the transport's account. An SA's line says if its replay
// protection is off.
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
		fmt.Fprintf(w, "%s\t%d\t%d\t%d\t%d\t%d\t%d\t%s\n", wrap.Shorten(st.Name, 18), st.Tally.Packets, st.Window.Top, st.Window.Seen,
			st.Window.Gaps, st.Window.Replays, st.Window.Late, window)
	}
}

// notes explain what a status alone does not.
var notes = map[status.Code]string{status.Success: "\tincluding frames left alone"}

// writeMoved writes what was moved, a column for each direction.
func writeMoved(w io.Writer, s *Summary) {
	fmt.Fprintf(w, "moved\tto %s\tto %s\n", s.Host, s.Wire)
	there, back := &s.Moved.ToHost, &s.Moved.ToWire
	for _, row := range []struct {
		name        string
		there, back any
	}{
		{"frames in", there.In, back.In}, {"bytes in", there.InBytes, back.InBytes},
		{"frames out", there.Out, back.Out}, {"bytes out", there.OutBytes, back.OutBytes},
		{"kept", there.Kept, back.Kept}, {"host_down", there.HostDown, back.HostDown}, {"too_long", there.TooLong, back.TooLong},
		{"refused", there.Refused, back.Refused}, {"retries", there.Retries, back.Retries}, {"oversize", there.Oversize, back.Oversize},
		{"uncut", there.Uncut, back.Uncut},
	} {
		fmt.Fprintf(w, "%s\t%d\t%d\n", row.name, row.there, row.back)
	}
}

// writeDrops writes an interface's drops: tx, which the appliance was too slow to take,
// and rx, which the network stack had no use for.
func writeDrops(w io.Writer, d KernelDrops) {
	if d.Err != nil {
		fmt.Fprintf(w, "%s\t-\t-\t%v\n", d.Interface, d.Err)
		return
	}
	fmt.Fprintf(w, "%s\t%d\t%d\n", d.Interface, d.Tx, d.Rx)
}
