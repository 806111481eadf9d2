// Package cli is the command line: flags fill an options struct, a run function
// does the work with what the other packages offer. Nothing but wiring, and the
// sentences that people read.
package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"tapsec/configs"
	"tapsec/control"
	"tapsec/internal/console"
	"tapsec/internal/exit"
	"tapsec/internal/files"
	"tapsec/internal/near"
	"tapsec/internal/wrap"
	"tapsec/sa"
)

// exitCodes are those for the answers of a running appliance; for others it is exit.Machine.
var exitCodes = map[control.Code]int{
	control.BadRequest: exit.Input, control.Full: 5, control.Unknown: 6, control.Exists: 7, control.BeyondProfile: 8,
}

// inputError marks an error as one that the user can mend in what they gave.
func inputError(err error) error { return exit.Mark(exit.Input, err) }

// errSaid stands for an error that another process has told the user already.
var errSaid = errors.New("said already")

// document is what a command prints, for people or as JSON.
type document interface{ WriteText(out io.Writer) error }

func show(out io.Writer, asJSON bool, d document) error {
	if !asJSON {
		return d.WriteText(out)
	}
	e := json.NewEncoder(out)
	e.SetIndent("", "  ")
	return e.Encode(d)
}

// streams are a command's.
type streams struct {
	stdin          io.Reader
	stdout, stderr io.Writer
}

func streamsOf(cmd *cobra.Command) streams {
	return streams{cmd.InOrStdin(), cmd.OutOrStdout(), cmd.ErrOrStderr()}
}

// Main runs the command line and returns the exit code.
func Main() int {
	root := newRoot()
	if slices.Contains(os.Args[1:], cobra.ShellCompRequestCmd) {
		plainUsages(root)
	}
	out := &files.Stdout{Writer: os.Stdout}
	root.SetOut(out)
	err := root.ExecuteContext(context.Background())
	if err == nil {
		err = out.Err
	}
	if err != nil && !errors.Is(err, errSaid) {
		_ = console.Bounded(func() error {
			_, err := fmt.Fprintln(os.Stderr, wrap.Message("tapsec: "+advised(err), console.IsTerminal(os.Stderr)))
			return err
		})
	}
	return exitCode(err)
}

// advised is an error with what helps if descriptors are short, the kernel refuses something, or an
// SA is not there, wherever that shows.
func advised(err error) string {
	text, path := err.Error(), (*fs.PathError)(nil)
	is := func(some ...error) bool {
		return slices.ContainsFunc(some, func(e error) bool { return errors.Is(err, e) })
	}
	advise := func(advice string) {
		if !strings.Contains(text, advice) {
			text += ": " + advice
		}
	}
	switch {
	case is(syscall.EMFILE, syscall.ENFILE):
		advise("allow more open files (ulimit -n)")
	case strings.HasSuffix(text, sa.ErrUnknown.Error()):
		advise("tapsec sa list shows those that there are")
	case is(os.ErrNoDeadline): // what os says where a file is no business of the poller
		text = strings.ReplaceAll(text, os.ErrNoDeadline.Error(), "the kernel does not let it be waited for")
		advise("allow more of that (sysctl fs.epoll.max_user_watches), or see what the container forbids")
	case errors.As(err, &path):
	case is(syscall.ENOPROTOOPT, syscall.EAFNOSUPPORT, syscall.EPROTONOSUPPORT, syscall.EOPNOTSUPP, syscall.ENOSYS, syscall.ENOTTY, syscall.EINVAL, syscall.EPERM):
		if errno := syscall.Errno(0); errors.As(err, &errno) && strings.HasSuffix(text, errno.Error()) {
			advise("see what the kernel or the container forbids")
		}
	}
	return text
}

func exitCode(err error) int {
	var mistakes configs.Errors
	var said *control.Error
	code, marked := exit.Code(err)
	switch {
	case err == nil:
		return exit.OK
	case marked:
		return code
	case errors.As(err, &mistakes):
		return exit.Input
	case errors.As(err, &said) && exitCodes[said.Code] != 0:
		return exitCodes[said.Code]
	}
	return exitOfAppliance(err)
}

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:   "tapsec",
		Short: "A software NIC with IPsec receive offload, on TAP interfaces",
		Long: `tapsec checks and decrypts AH and ESP on received frames as a NIC with IPsec
task offload does, and passes on every frame, followed by its verdict.

Exit codes: 0 done, 1 the machine lacks something or failed, 2 a flag, a
configuration or a capture is wrong, 3 an interface was deleted under the
appliance, 4 a frame of demo, bench or conformance was not annotated as
expected, a capture is not what replay --expect says, or shadow and the kernel
differ; when asking a running appliance: 5 its SA table is full, 6 there is no
such SA, 7 there is one already, 8 an SA is beyond the profile of the NIC.`,
		Version:       version().String(),
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.SetUsageTemplate(strings.ReplaceAll(root.UsageTemplate(), ".FlagUsages", fmt.Sprintf(".FlagUsagesWrapped %d", wrap.Width)))
	root.SetVersionTemplate("{{.Version}}\n")
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		if cmd.HasSubCommands() && cmd.Flags().NArg() > 0 { // the flag may be one of the command that was meant
			return unknownCommand(cmd, cmd.Flags().Arg(0))
		}
		return inputError(wrongFlag(cmd, err))
	})
	root.PersistentPreRunE = func(cmd *cobra.Command, _ []string) error { return checkFlags(cmd) }
	root.AddCommand(newCapabilities(), newCapture(), newCounters(), newDissector(), newEvents(), newExplain(), newKeys(), newMan(), newOffload(), newReplay(), newSA(), newShow(), newTrace(), newValidate(), newVersion())
	root.AddCommand(ofThisSystem()...)
	root.InitDefaultCompletionCmd()
	helpOnReasons(root)
	refuseUnknown(root)
	completeAll(root)
	return root
}

// refuseUnknown makes root and each command that only has others beneath it refuse what is none of
// them: cobra would show its help, and that would pass for done.
func refuseUnknown(root *cobra.Command) {
	for _, cmd := range append(root.Commands(), root) {
		if !cmd.HasSubCommands() || cmd.Runnable() {
			continue
		}
		if cmd.Name() == "completion" { // whose own would refuse arguments in other words
			for _, shell := range cmd.Commands() {
				shell.Args = args(0)
			}
		}
		cmd.Args = cobra.ArbitraryArgs // asked for below, where a suggestion is made
		cmd.RunE = func(cmd *cobra.Command, given []string) error {
			if len(given) == 0 {
				return cmd.Help()
			}
			return unknownCommand(cmd, given[0])
		}
	}
}

// unknownCommand is the error for a word that is none of a command's.
func unknownCommand(cmd *cobra.Command, word string) error {
	return inputError(fmt.Errorf("there is no command %s %s; %s", cmd.CommandPath(), sa.Quote(word), meant(cmd, word, "", commandNames(cmd))))
}

// commandNames are those of the commands beneath one that people may know of.
func commandNames(cmd *cobra.Command) (names []string) {
	for _, c := range cmd.Commands() {
		if !c.Hidden {
			names = append(names, c.Name())
		}
	}
	return names
}

// unknownFlag is the error for a flag that a command does not have. Written is as the user did.
func unknownFlag(cmd *cobra.Command, written string) error {
	var names []string
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		if !f.Hidden {
			names = append(names, f.Name)
		}
	})
	return fmt.Errorf("unknown flag: %s; %s", wrap.Printable(written), meant(cmd, strings.TrimLeft(written, "-"), "--", names))
}

// meant asks whether one of names, behind a prefix, was, or says where they are listed.
func meant(cmd *cobra.Command, found, prefix string, names []string) string {
	if name := near.Name(found, names); name != "" {
		return "did you mean " + prefix + name + "?"
	}
	return cmd.CommandPath() + " --help lists what there is"
}

// wrongFlag is an error of the library that reads flags, in the words of the others.
func wrongFlag(cmd *cobra.Command, err error) error {
	var unknown *pflag.NotExistError
	if errors.As(err, &unknown) {
		if short := unknown.GetSpecifiedShortnames(); short != "" {
			return unknownFlag(cmd, "-"+short)
		}
		return unknownFlag(cmd, "--"+unknown.GetSpecifiedName())
	}
	var bare *pflag.ValueRequiredError
	if errors.As(err, &bare) {
		return emptyFlag(bare.GetFlag())
	}
	var wrong *pflag.InvalidValueError
	if !errors.As(err, &wrong) {
		return err
	}
	name, why := "--"+wrong.GetFlag().Name, wrong.Unwrap()
	var number *strconv.NumError
	if errors.As(why, &number) || strings.HasPrefix(why.Error(), "time: ") { // it tells of Go's functions
		return fmt.Errorf("%s: expected %s, found %s", name, kindOf(wrong.GetFlag().Value.Type()), sa.Quote(wrong.GetValue()))
	}
	return fmt.Errorf("%s: %w", name, why)
}

// checkFlags refuses a flag with an empty text, such as "$STATE" where a script's variable is not
// set: it would be taken for one that was not given. Nor is any time negative.
func checkFlags(cmd *cobra.Command) (err error) {
	cmd.Flags().Visit(func(f *pflag.Flag) {
		if time, is := strings.CutPrefix(f.Value.String(), "-"); is && f.Value.Type() == "duration" && err == nil {
			err = inputError(fmt.Errorf("--%s: expected a time from 0s on, found -%s", f.Name, time))
		}
		empty := f.Value.Type() == "string" && f.Value.String() == ""
		if list, ok := f.Value.(pflag.SliceValue); ok {
			empty = slices.Contains(list.GetSlice(), "")
		}
		if empty && err == nil {
			err = inputError(emptyFlag(f))
		}
	})
	return err
}

// emptyFlag is the error for a flag without its value.
func emptyFlag(f *pflag.Flag) error {
	what, _ := pflag.UnquoteUsage(f)
	return fmt.Errorf("--%s: expected %s, found nothing", f.Name, what)
}

// kindOf names what a flag of a type takes.
func kindOf(flag string) string {
	switch {
	case flag == "bool":
		return "true or false"
	case flag == "duration":
		return "a time like 30s or 8h"
	case flag == "uint32":
		return "a number from 0 to 4294967295"
	case strings.HasPrefix(flag, "uint"):
		return "a number from 0 on"
	}
	return "a number"
}

// args demands that many positional arguments.
func args(want int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, given []string) error {
		switch {
		case len(given) > want:
			return inputError(fmt.Errorf("unexpected argument %q; usage: %s", given[want], cmd.UseLine()))
		case len(given) < want:
			return inputError(fmt.Errorf("an argument is missing; usage: %s", cmd.UseLine()))
		}
		return nil
	}
}
