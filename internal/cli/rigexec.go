//go:build linux

package cli

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"strings"

	"github.com/spf13/cobra"

	"tapsec/internal/console"
	"tapsec/internal/exit"
	"tapsec/internal/lab/hosts"
	"tapsec/internal/lab/rig"
	"tapsec/sa"
)

// Exit codes of rig exec where the command cannot be run, as env(1) has them.
const (
	exitNotRun   = 126
	exitNotFound = 127
)

func newRigExec() *cobra.Command {
	name := ""
	cmd := &cobra.Command{
		Use:   "exec [--rig NAME] HOST [-- COMMAND...]",
		Short: "Run a command in a host of the rig",
		Long: `exec runs a command in host a, in host b, or in nic, the namespace between them
where the wire is. Without a command it is your shell. The command replaces
tapsec: terminal, signals and exit code are its own.`,
		Example: `  tapsec rig exec a -- ping -c3 10.77.0.2
  tapsec rig exec nic -- ip -s link show wire0`,
		Args: func(cmd *cobra.Command, given []string) error { return args(max(len(given), 1))(cmd, given) },
		RunE: func(cmd *cobra.Command, given []string) error { return rigExec(cmd.ErrOrStderr(), name, given) },
		ValidArgsFunction: func(_ *cobra.Command, given []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
			if len(given) > 0 {
				return nil, cobra.ShellCompDirectiveDefault
			}
			return []cobra.Completion{"a", "b", "nic"}, cobra.ShellCompDirectiveNoFileComp
		},
	}
	cmd.DisableFlagsInUseLine = true
	cmd.Flags().SetInterspersed(false) // the command's flags are its own
	cmd.Flags().StringVar(&name, "rig", hosts.Default, "`NAME` of the rig")
	_ = cmd.RegisterFlagCompletionFunc("rig", completeRigs)
	return cmd
}

// rigExec turns into the command. It returns on errors only.
func rigExec(errOut io.Writer, name string, given []string) error {
	if len(given) > 1 && given[1] != "--" && strings.HasPrefix(given[1], "-") {
		return inputError(fmt.Errorf("expected a command behind %s, found %s; rig exec's own flags come before the host", given[0], sa.Quote(given[1])))
	}
	r, err := rig.Find(name)
	if err != nil {
		return err
	}
	host, command := given[0], given[1:]
	if len(command) > 0 && command[0] == "--" {
		command = command[1:]
	}
	if len(command) == 0 && console.IsTerminal(os.Stdin) {
		fmt.Fprintf(errOut, "host %s of rig %s; exit leaves it\n", host, name)
	}
	err = r.Enter(host, command, "rig", "enter")
	if errors.Is(err, rig.ErrNoHost) {
		return inputError(err)
	}
	return err
}

// newRigEnter is what rig exec runs inside the namespaces.
func newRigEnter() *cobra.Command {
	cmd := &cobra.Command{
		Use:    "enter HOST DIR -- COMMAND...",
		Hidden: true,
		Args:   func(cmd *cobra.Command, given []string) error { return args(max(len(given), 3))(cmd, given) },
		RunE: func(_ *cobra.Command, given []string) error {
			err := rig.ExecInside(given[0], given[1], given[2:])
			code := exitNotRun
			if errors.Is(err, exec.ErrNotFound) || errors.Is(err, fs.ErrNotExist) {
				code = exitNotFound
			}
			return exit.Mark(code, err)
		},
	}
	return cmd
}
