//go:build linux

package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"tapsec/internal/exit"
	"tapsec/internal/files"
	"tapsec/internal/lab/conformance"
	"tapsec/internal/lab/rig"
	"tapsec/internal/lab/testbed"
)

// conformanceOptions are the flags of conformance.
type conformanceOptions struct {
	testbed.Subject
	conformance.Form
	setups []string
	write  string
	page   string
}

func newConformance() *cobra.Command {
	o := conformanceOptions{}
	cmd := &cobra.Command{
		Use:   "conformance",
		Short: "Judge a NIC by the contract's table and by the packets of others",
		Long: `conformance sends a frame for each row of the contract's table, and the packets
of RFCs and of other implementations, good and damaged, into a NIC, and compares
what comes to the host with what must come: the word, the reason, what is said
of each IPsec header, and the bytes. Each case says who asks for it.

The NIC is this program's: on TAPs in a network that ends with the command or,
with --memory or if there can be no TAP, the pipeline alone. With --wire and
--host it is whatever stands between two interfaces and annotates as
docs/trailer.md says. That NIC has to be prepared for each setup: --configure
names a command that is run with a setup's configuration as its argument, and
returns when the NIC is ready; --write-setups shows these files.

Exit code 0: all cases passed, or could not be run; 4: some failed.`,
		Example: `  tapsec conformance
  tapsec conformance --junit >report.xml
  tapsec conformance --wire veth0 --host veth1 --configure ./restart-my-nic
  tapsec conformance --wire veth0 --host veth1 --setup layers  # set up by hand`,
		Args: args(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return judge(cmd, o)
		},
	}
	f := cmd.Flags()
	f.BoolVar(&o.TAPs, "tap", false, "judge this program on TAPs, or fail")
	f.BoolVar(&o.Memory, "memory", false, "judge this program's pipeline alone, in memory")
	f.StringVar(&o.Wire, "wire", "", "judge another NIC: send out of interface `NAME`")
	f.StringVar(&o.Host, "host", "", "and receive on interface `NAME`")
	f.StringVar(&o.Configure, "configure", "", "`COMMAND` that prepares that NIC; the shell runs it with a configuration file as argument")
	f.DurationVar(&o.Wait, "wait", time.Second, "`TIME` that the NIC may keep a frame for, up to 1m")
	f.StringSliceVar(&o.setups, "setup", nil, "only the cases of the setups with these `NAMES`, with commas")
	_ = cmd.RegisterFlagCompletionFunc("setup", completeSetups)
	f.StringVar(&o.write, "write-setups", "", "write the setups' configurations to this `FOLDER`, and judge nothing")
	f.BoolVar(&o.JSON, "json", false, "print one JSON object")
	f.BoolVar(&o.JUnit, "junit", false, "print JUnit's XML")
	f.StringVar(&o.page, "report", "", "write a page for a browser to this HTML `FILE` as well")
	f.BoolVarP(&o.OnlyFailures, "quiet", "q", false, "no lines for cases that passed")
	return cmd
}

// completeSetups completes the last of several names of setups.
func completeSetups(cmd *cobra.Command, given []string, typed string) ([]cobra.Completion, cobra.ShellCompDirective) {
	var names []string
	for _, setup := range conformance.Setups() {
		names = append(names, setup.Name)
	}
	return several(names...)(cmd, given, typed)
}

// judge finds the NIC and judges it.
func judge(cmd *cobra.Command, o conformanceOptions) error {
	setups, err := conformance.Named(o.setups)
	if err != nil {
		err = fmt.Errorf("--setup: %w", err)
	}
	if err = errors.Join(err, o.check(len(setups))); err != nil {
		return inputError(err)
	}
	if o.write != "" {
		return inputError(testbed.WriteSetups(o.write, setups))
	}
	var none noRig
	if o.Wire == "" && !o.Memory && !rig.Inside() {
		if err := inRig(cmd); !errors.As(err, &none) {
			return err
		}
	}
	on := func(ctx context.Context) error {
		bed, who, err := o.Open(ctx, none.error, cmd.ErrOrStderr())
		if err != nil {
			return err
		}
		return errors.Join(o.report(cmd.OutOrStdout(), who, bed, setups), bed.Close())
	}
	if o.Wire == "" { // it leaves nothing behind
		return on(cmd.Context())
	}
	return untilStopped(cmd, lastWords, func(ctx context.Context) error {
		err := on(ctx)
		if ctx.Err() != nil {
			err = errors.New("interrupted")
		}
		return err
	})
}

// check finds flags that do not go together.
func (o *conformanceOptions) check(setups int) error {
	if o.JSON && o.JUnit {
		return errors.New("--json and --junit: expected one of them")
	}
	return o.Subject.Check(setups)
}

// report runs the cases and prints what became of them.
func (o *conformanceOptions) report(out io.Writer, who string, nic conformance.NIC, setups []conformance.Setup) error {
	var page io.WriteCloser
	if o.page != "" { // before all the work
		file, err := files.Inputs{}.Create("--report", o.page, 0o666)
		if err != nil {
			return inputError(err)
		}
		defer file.Close()
		page = file
	}
	results, err := conformance.Run(nic, setups)
	if err != nil {
		return err
	}
	conformance.Sort(results)
	r := conformance.Report{NIC: who, Results: results}
	err = r.Write(out, o.Form)
	if page != nil {
		err = errors.Join(err, r.WriteHTML(page), page.Close())
	}
	if t := r.Totals(); err == nil && t.Failed > 0 {
		err = exit.Mark(exit.Disagree, fmt.Errorf("%d of %d cases failed", t.Failed, len(results)))
	}
	return err
}
