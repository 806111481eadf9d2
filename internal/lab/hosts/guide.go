package hosts

import (
	"fmt"
	"io"
	"text/tabwriter"

	"tapsec/internal/lab/rig"
)

// Default is the name of a rig that was given none.
const Default = "default"

// WriteGuide says what is there and how to enter it, in commands that begin with self. The NIC, which
// starts first, gives the frames to tcpdump, since Debian's cannot capture in a user namespace: it gives
// up being root there, for a user that the namespace lacks.
func WriteGuide(out io.Writer, r *rig.State, self string) error {
	name := ""
	if r.Name != Default {
		name = " " + r.Name
	}
	enter := self + " rig exec "
	if name != "" {
		enter += "--rig" + name + " "
	}
	rootless := ""
	if r.Rootless {
		rootless = ", without root"
	}
	fmt.Fprintf(out, "rig %s is up%s\n\n", r.Name, rootless)
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	for _, h := range r.Hosts {
		fmt.Fprintf(w, "  %s\t%s\n", h.Name, h.Line())
	}
	w.Flush()
	_, err := fmt.Fprintf(out, `
%[1]sa -- ping -c3 10.77.0.2
%[1]sa -- ping -c3 fd77::2
%[2]s capture --from %[7]s -w - | tcpdump -nr -
%[1]sb
%[2]s rig status%[3]s
%[2]s rig down%[3]s

configuration  %[4]s; after a change: kill -HUP %[5]d
log            %[6]s
`, enter, self, name, r.Config, r.Supervisor.PID, r.Log(), r.Programs[0].Control)
	return err
}
