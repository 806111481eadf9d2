//go:build linux

package cli

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"tapsec/internal/files"
	"tapsec/internal/lab/conformance"
	"tapsec/internal/lab/rig"
	"tapsec/internal/lab/testbed"
)

// conformanceOptions are the flags of conformance.
type conformanceOptions struct {
	taps, memory    bool
	wire, host      string
	configure       string
	wait            time.Duration
	setups          []string
	write           string
	asJSON, asJUnit bool
	page            string
	onlyFailures    bool
	out, said       io.Writer
}

func newConformance() *cobra.Command {
	o := conformanceOptions{}
	cmd := &cobra.Command{
		Use:   "conformance",
		Short: "Judge a NIC by the contract's table and by the packets of others",
		Long: `conformance sends a frame for each row of the contract's table, and the packets
of RFCs and of other implementations, good and damaged, into a NIC, and holds
what comes to the host against what must: the word, the reason, what is told of
each IPsec header, and the bytes. Each case says who asks for it.

The NIC is this program's: on TAPs in a network that ends with the command, or,
with --memory or where no TAP can be had, the pipeline alone. With --wire and
--host it is whatever stands between two interfaces and annotates as
docs/trailer.md says. That NIC has to be readied for each setup: --configure
names a command that is run with a setup's configuration as its argument, and
comes back when the NIC is ready; --write-setups shows these files.

Exit code 0: all cases passed, or could not be run; 4: some failed.`,
		Example: `  tapsec conformance
  tapsec conformance --junit >report.xml
  tapsec conformance --wire veth0 --host veth1 --configure ./restart-my-nic
  tapsec conformance --wire veth0 --host veth1 --setup layers  # readied by hand`,
		Args: args(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			o.out, o.said = cmd.OutOrStdout(), cmd.ErrOrStderr()
			return judge(o)
		},
	}
	f := cmd.Flags()
	f.BoolVar(&o.taps, "tap", false, "judge this program on TAPs, or fail")
	f.BoolVar(&o.memory, "memory", false, "judge this program's pipeline alone, in memory")
	f.StringVar(&o.wire, "wire", "", "judge another NIC: send out of interface `NAME`")
	f.StringVar(&o.host, "host", "", "and receive on interface `NAME`")
	f.StringVar(&o.configure, "configure", "", "`COMMAND` that readies that NIC; the shell runs it with a configuration file as argument")
	f.DurationVar(&o.wait, "wait", time.Second, "`TIME` for which that NIC may keep a frame, up to 1m")
	f.StringSliceVar(&o.setups, "setup", nil, "only the cases of the setups with these `NAMES`")
	_ = cmd.RegisterFlagCompletionFunc("setup", completeSetups)
	f.StringVar(&o.write, "write-setups", "", "write the setups' configurations to this `FOLDER`, and judge nothing")
	f.BoolVar(&o.asJSON, "json", false, "print one JSON object")
	f.BoolVar(&o.asJUnit, "junit", false, "print JUnit's XML")
	f.StringVar(&o.page, "report", "", "write a page for a browser to this HTML `FILE` as well")
	f.BoolVarP(&o.onlyFailures, "quiet", "q", false, "no lines for cases that passed")
	return cmd
}

// judge finds the NIC and judges it.
func judge(o conformanceOptions) error {
	labs, err := conformance.Named(o.setups)
	if err != nil {
		err = fmt.Errorf("--setup: %w", err)
	}
	if err = errors.Join(err, o.check(len(labs))); err != nil {
		return inputError(err)
	}
	switch {
	case o.write != "":
		return testbed.WriteSetups(o.write, labs)
	case o.wire != "":
		return judgeOther(o, labs)
	case o.memory:
		return o.report("this program's pipeline, in memory", &testbed.Memory{}, labs)
	case rig.Inside():
		return judgeTAPs(o, labs)
	}
	return judgeInRig(o, labs)
}

// check finds flags that do not go together.
func (o *conformanceOptions) check(setups int) error {
	nics := 0
	for _, is := range []bool{o.taps, o.memory, o.wire != ""} {
		if is {
			nics++
		}
	}
	switch other := o.wire != ""; {
	case other != (o.host != ""):
		return errors.New("--wire and --host: expected both or neither")
	case nics > 1:
		return errors.New("--tap, --memory, and --wire with --host: expected one of them")
	case o.asJSON && o.asJUnit:
		return errors.New("--json and --junit: expected one of them")
	case o.wait <= 0 || o.wait > time.Minute:
		return fmt.Errorf("--wait: expected more than 0s, up to 1m, found %s", o.wait)
	case o.configure != "" && !other:
		return errors.New("--configure is for another NIC: say also --wire and --host")
	case other && o.configure == "" && setups > 1:
		return fmt.Errorf("%d setups, each another configuration: say with --configure how to ready the NIC, or ready it for one and name that with --setup", setups)
	}
	return nil
}

// judgeInRig runs the command again in a rig.
func judgeInRig(o conformanceOptions, labs []conformance.Lab) error {
	err := inRig("conformance", fmt.Sprint("--tap=", o.taps), fmt.Sprint("--json=", o.asJSON), fmt.Sprint("--junit=", o.asJUnit),
		fmt.Sprint("--quiet=", o.onlyFailures), "--report="+o.page, "--setup="+strings.Join(o.setups, ","))
	if none := (noRig{}); errors.As(err, &none) {
		return judgeWithoutTAPs(o, labs, none)
	}
	return err
}

// judgeTAPs judges this program inside a rig.
func judgeTAPs(o conformanceOptions, labs []conformance.Lab) error {
	bed, err := testbed.OpenTAPs()
	if err != nil {
		return judgeWithoutTAPs(o, labs, err)
	}
	return errors.Join(o.report("this program, on TAPs", bed, labs), bed.Close())
}

// judgeWithoutTAPs is left where no TAPs can be had, unless they were asked for.
func judgeWithoutTAPs(o conformanceOptions, labs []conformance.Lab, why error) error {
	if o.taps {
		return fmt.Errorf("conformance needs TAPs: %w", why)
	}
	return o.report(fmt.Sprintf("this program's pipeline, in memory (%v)", why), &testbed.Memory{}, labs)
}

// judgeOther judges whatever stands between two interfaces.
func judgeOther(o conformanceOptions, labs []conformance.Lab) error {
	n, err := testbed.OpenOther(o.wire, o.host, o.configure, o.wait, o.said)
	if err != nil {
		return err
	}
	return errors.Join(o.report(fmt.Sprintf("the NIC between %s and %s", o.wire, o.host), n, labs), n.Close())
}

// report runs the cases and prints what became of them.
func (o *conformanceOptions) report(who string, nic conformance.NIC, labs []conformance.Lab) error {
	results, err := conformance.Run(nic, labs)
	if err != nil {
		return err
	}
	conformance.Sort(results)
	r := conformance.Report{NIC: who, Results: results}
	switch {
	case o.asJSON:
		err = r.WriteJSON(o.out)
	case o.asJUnit:
		err = r.WriteJUnit(o.out)
	default:
		err = r.WriteText(o.out, o.onlyFailures)
	}
	if o.page != "" {
		err = errors.Join(err, writePage(o.page, &r))
	}
	if t := r.Totals(); err == nil && t.Failed > 0 {
		err = exitError{exitDisagree, fmt.Errorf("%d of %d cases failed", t.Failed, len(results))}
	}
	return err
}

// writePage writes the report's page.
func writePage(path string, r *conformance.Report) error {
	to, err := files.Inputs{}.Create("--report", path, 0o666)
	if err != nil {
		return inputError(err)
	}
	return errors.Join(r.WriteHTML(to), to.Close())
}
