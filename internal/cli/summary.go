package cli

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

// summary is what a run leaves on standard output: what was moved, how it was
// judged, and what the kernel dropped before or behind it.
func (r *running) summary(out io.Writer, ran time.Duration) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "ran for %s\n\n", ran.Round(time.Millisecond))
	fmt.Fprint(w, "direction\tframes in\tbytes in\tframes out\tbytes out\tkept\thost_down\ttoo_long\tretries\toversize\n")
	wire, host, moved := r.config.Wire.Name, r.config.Host.Name, r.nic.Summary()
	direction(w, wire+" to "+host, moved.ToHost)
	direction(w, host+" to "+wire, moved.ToWire)
	if r.appliance != nil {
		r.appliance.summary(w)
	}
	if r.host != nil {
		r.host.summary(w)
	}
	fmt.Fprint(w, "\nkernel drops\tqueue full\trefused by the host stack\n")
	kernelDrops(w, r.ports.wire, r.ports.wireBefore)
	kernelDrops(w, r.ports.host, r.ports.hostBefore)
	return w.Flush()
}

// summary is the NIC's account.
func (a *appliance) summary(w io.Writer) {
	fmt.Fprint(w, "\nstatus\tframes\n")
	for code := range status.Code(status.NumCodes) {
		if n := a.code(code); n > 0 {
			fmt.Fprintf(w, "%s\t%d%s\n", code, n, also[code])
		}
	}
	fmt.Fprint(w, "\nreason\tframes\n")
	for _, r := range status.Reasons() {
		if n := a.reason(r); n > 0 {
			fmt.Fprintf(w, "%s\t%d\t%s\n", r.String(), n, r.Error())
		}
	}
}

// summary is the transport's account. That replay protection is off stands on
// the SA's line.
func (h *host) summary(w io.Writer) {
	s := h.consumer.Summary()
	fmt.Fprint(w, "\ntransport\tframes\n")
	for v := transport.Deliver; v <= transport.Drop; v++ {
		fmt.Fprintf(w, "%s\t%d\n", v, s.Verdicts[v.String()])
	}
	for r := range transport.Reason(transport.NumReasons) {
		if n := s.Reasons[r.String()]; n > 0 {
			fmt.Fprintf(w, "  %s\t%d\t%s\n", r, n, r.Error())
		}
	}
	states := h.consumer.States()
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

// also says what a status alone does not.
var also = map[status.Code]string{status.Success: "\tincluding frames left alone"}

func direction(w io.Writer, name string, t tap.Tally) {
	fmt.Fprintf(w, "%s\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\n",
		name, t.In, t.InBytes, t.Out, t.OutBytes, t.Kept, t.HostDown, t.TooLong, t.Retries, t.Oversize)
}

// kernelDrops prints an interface's tx drops, which came while the appliance
// did not keep up, and its rx drops, for which the network stack had no use,
// since the run began.
func kernelDrops(w io.Writer, d *tap.Device, before tap.Drops) {
	got, err := d.Drops()
	if err != nil {
		fmt.Fprintf(w, "%s\t-\t-\t%v\n", d.Name(), err)
		return
	}
	fmt.Fprintf(w, "%s\t%d\t%d\n", d.Name(), got.Tx-before.Tx, got.Rx-before.Rx)
}
