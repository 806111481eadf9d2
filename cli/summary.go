package cli

import (
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"tapsec/configs"
	"tapsec/nic"
	"tapsec/status"
	"tapsec/tap"
)

// summary is what a run leaves on standard output: what was moved, how it was
// judged, and what the kernel dropped before or behind it.
func summary(out io.Writer, c *configs.Config, ran time.Duration, moved nic.Summary, a *appliance, p *ports) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "ran for %s\n\n", ran.Round(time.Millisecond))
	fmt.Fprint(w, "direction\tframes in\tbytes in\tframes out\tbytes out\thost_down\tretries\toversize\n")
	direction(w, c.Wire.Name+" to "+c.Host.Name, moved.ToHost)
	direction(w, c.Host.Name+" to "+c.Wire.Name, moved.ToWire)
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
	fmt.Fprint(w, "\nkernel drops\tqueue full\trefused by the host stack\n")
	kernelDrops(w, p.wire, p.wireBefore)
	kernelDrops(w, p.host, p.hostBefore)
	return w.Flush()
}

// also says what a status alone does not.
var also = map[status.Code]string{status.Success: "\tincluding frames left alone"}

func direction(w io.Writer, name string, t tap.Tally) {
	fmt.Fprintf(w, "%s\t%d\t%d\t%d\t%d\t%d\t%d\t%d\n",
		name, t.In, t.InBytes, t.Out, t.OutBytes, t.HostDown, t.Retries, t.Oversize)
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
