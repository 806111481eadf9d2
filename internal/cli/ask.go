package cli

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"tapsec/control"
)

// print prints an answer, as JSON or as f does in columns.
func (o *asked) print(out io.Writer, answer any, f func(io.Writer)) error {
	if o.json {
		e := json.NewEncoder(out)
		e.SetIndent("", "  ")
		return e.Encode(answer)
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	f(w)
	return w.Flush()
}

// listSAs prints a line for each SA, which fits a terminal: addresses do not.
func listSAs(w io.Writer, sas []control.SA) {
	fmt.Fprintln(w, "NAME\tSPI\tIS\tMODE\tDIR\tSUITE\tNIC\tFROM")
	for _, s := range sas {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", shorten(s.Name, 18), s.SPI, s.Protocol, s.Mode, s.Direction,
			shorten(s.Suite, 17), choose(s.Offloaded, "yes", "no"), s.Origin)
	}
}

// shorten cuts a text that is too long for its column.
func shorten(text string, most int) string {
	if runes := []rune(text); len(runes) > most {
		return string(runes[:most-3]) + "..."
	}
	return text
}

func showSA(w io.Writer, s *control.SA) {
	held := "does not hold it"
	if s.Offloaded {
		held = fmt.Sprintf("holds it, handle %d", s.Handle)
	}
	for _, line := range [][2]string{
		{"name", s.Name}, {"protocol", s.Protocol.String()}, {"spi", s.SPI.String()},
		{"dst", address(s.Dst)}, {"src", address(s.Src)},
		{"mode", s.Mode}, {"direction", s.Direction}, {"suite", s.Suite}, {"esn", choose(s.ESN, "yes", "no")},
		{"encap", choose(s.Encap, "in UDP", "no")}, {"partner", cmp.Or(s.Partner, "none")},
		{"offload", s.Offload + "; the NIC " + held}, {"from", "the " + s.Origin},
	} {
		fmt.Fprintf(w, "%s\t%s\n", line[0], line[1])
	}
}

// address is an SA's, which may have none.
func address(a netip.Addr) string {
	if !a.IsValid() {
		return "any"
	}
	return a.String()
}

func newOffload() *cobra.Command {
	o := asked{}
	return o.command(&cobra.Command{
		Use:   "offload {on|off} [ah|esp]",
		Short: "Enable or disable the receive offload of a running appliance",
		Long: `offload switches the receive offload of a tapsec that runs with --control
PATH: all of it, or that of one protocol. The next reload puts it as its file
says.`,
		ValidArgs: []string{"on", "off", "ah", "esp"},
		Args: func(cmd *cobra.Command, given []string) error {
			if len(given) == 0 || len(given) > 2 || given[0] != "on" && given[0] != "off" || len(given) == 2 && given[1] != "ah" && given[1] != "esp" {
				return inputError(fmt.Errorf("expected on or off, and ah, esp or nothing; usage: %s", cmd.UseLine()))
			}
			return nil
		},
	}, func(c *control.Client, _ *cobra.Command, given []string) error {
		on := given[0] == "on"
		switch {
		case len(given) == 1:
			return c.Switch(control.Switches{Active: &on})
		case given[1] == "ah":
			return c.Switch(control.Switches{AH: &on})
		}
		return c.Switch(control.Switches{ESP: &on})
	})
}

func newCapabilities() *cobra.Command {
	o := asked{}
	return o.jsonFlag(o.command(&cobra.Command{
		Use:   "capabilities",
		Short: "Show what the NIC of a running appliance can do and does",
		Args:  args(0),
	}, func(c *control.Client, cmd *cobra.Command, _ []string) error {
		caps, err := c.Capabilities()
		if err != nil {
			return err
		}
		return o.print(cmd.OutOrStdout(), caps, func(w io.Writer) { showCapabilities(w, &caps) })
	}))
}

func showCapabilities(w io.Writer, c *control.Capabilities) {
	on := func(is bool) string { return choose(is, "on", "off") }
	room := "no bound"
	if c.Capacity > 0 {
		room = fmt.Sprint(c.Capacity)
	}
	fmt.Fprintf(w, "profile\t%s\noffload\t%s; ah %s, esp %s\n", c.Profile, on(c.Active), on(c.AH), on(c.ESP))
	fmt.Fprintf(w, "bundles\t%d of %s%s\n", c.Bundles, room, choose(c.UnderPressure, ", under pressure", ""))
	for _, name := range slices.Sorted(maps.Keys(c.Flags)) {
		fmt.Fprintf(w, "%s\t%s\n", name, choose(c.Flags[name], "yes", "no"))
	}
	label := "algorithms"
	for part := range slices.Chunk(c.Algorithms, 4) {
		fmt.Fprintf(w, "%s\t%s\n", label, strings.Join(part, " "))
		label = ""
	}
}

func newCounters() *cobra.Command {
	o, name := asked{}, ""
	cmd := o.jsonFlag(o.command(&cobra.Command{
		Use:   "counters [--sa NAME]",
		Short: "Show what a running appliance has counted",
		Long: `counters shows all that is counted and is not 0, or what is about one SA.
--json has the zeros too, and for each counter its unit and a sentence.`,
		Args: args(0),
	}, func(c *control.Client, cmd *cobra.Command, _ []string) error {
		all, err := c.Counters(name)
		if err != nil {
			return err
		}
		return o.print(cmd.OutOrStdout(), control.Counters{Counters: all}, func(w io.Writer) { showCounters(w, all) })
	}))
	cmd.Flags().StringVar(&name, "sa", "", "the SA of this `NAME` alone")
	return cmd
}

func showCounters(w io.Writer, all []control.Counter) {
	for _, c := range all {
		for _, s := range c.Samples {
			if s.Value == 0 {
				continue
			}
			var labels []string
			for _, name := range slices.Sorted(maps.Keys(s.Labels)) {
				labels = append(labels, s.Labels[name])
			}
			fmt.Fprintf(w, "%s\t%s\t%.0f\n", strings.TrimPrefix(c.Name, "tapsec_"), shorten(strings.Join(labels, " "), 32), s.Value)
		}
	}
}
