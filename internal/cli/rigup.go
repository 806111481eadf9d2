package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"tapsec/configs"
	"tapsec/internal/lab/hosts"
	"tapsec/internal/lab/rig"
	"tapsec/sa"
)

// rigUpOptions are the flags of rig up.
type rigUpOptions struct {
	name         string
	config       string
	profile      string
	split        bool
	clearAnswers bool
}

func newRigUp() *cobra.Command {
	o := rigUpOptions{}
	cmd := &cobra.Command{
		Use:   "up [NAME]",
		Short: "Put a rig up in the background; return when traffic flows",
		Long: `up makes the hosts a and b and the NIC's own namespace, starts the programs in
the background, and says how to enter the hosts. Several rigs may be up, each
with a name.

Without -c the configuration is configs/rig.yaml with fresh keys: IPv4 in
transport mode inside a tunnel, IPv6 in transport mode. It lies in the rig's
directory; change it and send SIGHUP, as up says.`,
		Args: oneRig,
		RunE: func(cmd *cobra.Command, given []string) error {
			o.name = rigName(given)
			ctx, stop := signal.NotifyContext(cmd.Context(), unix.SIGINT, unix.SIGTERM)
			defer stop()
			r, err := rigUp(ctx, o)
			if err != nil {
				return err
			}
			return printRigUp(cmd.OutOrStdout(), r)
		},
	}
	f := cmd.Flags()
	f.StringVarP(&o.config, "config", "c", "", "configuration `FILE` for both hosts")
	f.StringVar(&o.profile, "profile", "", "`NAME` of what the NIC can do (default full)")
	f.BoolVar(&o.split, "split", false, "NIC and transport as two programs, host0 between them")
	f.BoolVar(&o.clearAnswers, "clear-answers", false, "protect only what a sends")
	_ = cmd.MarkFlagFilename("config", "yaml", "yml", "json")
	return cmd
}

// rigPrograms run in the NIC's namespace, what receives first. Their control
// sockets and state files are in dir.
func rigPrograms(dir, config string, split bool) []rig.Program {
	program := func(name string, args ...string) rig.Program {
		control := filepath.Join(dir, name+".sock")
		if name != "nic" {
			args = append(args, "--state", filepath.Join(dir, name+".state"))
		}
		return rig.Program{Name: name, Control: control, Args: append(args, "-c", config, "--control", control)}
	}
	send := program("send", "send", "--stack", "stack0", "--stack-netns", "a", "--out", "wire0")
	if split {
		return []rig.Program{
			program("nic", "run", "--wire", "wire0", "--host", "host0"),
			program("transport", "transport", "--in", "host0", "--out", "stack0", "--stack-netns", "b", "--nic", filepath.Join(dir, "nic.sock")),
			send,
		}
	}
	return []rig.Program{program("run", "run", "--wire", "wire0", "--transport", "stack0", "--stack-netns", "b"), send}
}

// rigUp puts the rig up. On an error nothing is left of it.
func rigUp(ctx context.Context, o rigUpOptions) (*rig.Standing, error) {
	profile, err := o.check()
	if err != nil {
		return nil, inputError(err)
	}
	for _, need := range rig.Needs() {
		if need.Name == "tun device" && !need.Met {
			return nil, errors.New(need.Detail + " " + need.Remedy)
		}
	}
	seat, err := rig.Claim(o.name)
	if err != nil {
		return nil, err
	}
	plan := &rig.Standing{Name: o.name, Config: o.config, Hosts: hosts.Plan()}
	if o.config == "" {
		plan.Config = filepath.Join(seat.Dir(), "rig.yaml")
		err = os.WriteFile(plan.Config, configs.Rig(profile, !o.clearAnswers), 0o600)
	}
	plan.Programs = rigPrograms(seat.Dir(), plan.Config, o.split)
	if err == nil {
		err = seat.Raise(ctx, plan, "rig", "supervise", seat.Dir())
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("rig %s: %w", o.name, err), seat.Remove())
	}
	return plan, seat.Release()
}

// check looks at the flags, and at the user's configuration before anything is
// made.
func (o *rigUpOptions) check() (sa.Profile, error) {
	full, _ := sa.ProfileByName("full")
	if o.config != "" {
		if o.profile != "" || o.clearAnswers {
			return full, errors.New("--profile and --clear-answers are for the built-in configuration; say it in that of -c")
		}
		path, err := filepath.Abs(o.config)
		if err != nil {
			return full, err
		}
		o.config = path
		_, err = configs.Load(path)
		return full, err
	}
	if o.profile == "" {
		return full, nil
	}
	profile, err := sa.ProfileByName(o.profile)
	if err != nil {
		err = fmt.Errorf("--profile: %w", err)
	}
	return profile, err
}

// printRigUp says what is there and how to enter it.
func printRigUp(out io.Writer, r *rig.Standing) error {
	self, name := invocation(), ""
	if r.Name != defaultRig {
		name = " " + r.Name
	}
	enter := self + " rig exec "
	if name != "" {
		enter += "--rig" + name + " "
	}
	fmt.Fprintf(out, "rig %s is up%s\n\n", r.Name, choose(r.Rootless, ", without root", ""))
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	for _, h := range r.Hosts {
		fmt.Fprintf(w, "  %s\t%s\n", h.Name, hostLine(h))
	}
	w.Flush()
	fmt.Fprintf(out, `
%[1]sa -- ping -c3 10.77.0.2
%[1]sa -- ping -c3 fd77::2
%[1]snic -- tcpdump -ni wire0
%[1]sb
%[2]s rig status%[3]s
%[2]s rig down%[3]s

configuration  %[4]s; after a change: kill -HUP %[5]d
log            %[6]s
`, enter, self, name, r.Config, r.Supervisor.PID, r.Log())
	return nil
}

// hostLine is a host's interface and addresses, without the tunnel's endpoint.
func hostLine(h rig.Host) string {
	if h.Interface == "" {
		return "the namespace of the programs, with the wire"
	}
	line := h.Interface
	for _, a := range h.Addresses {
		if !a.IsSingleIP() {
			line += "  " + a.Addr().String()
		}
	}
	return line
}

// invocation is how the user called this program, so that the commands shown can
// be copied.
func invocation() string {
	self := os.Args[0]
	if strings.Contains(self, "/go-build") { // of go run, and gone by then
		self = "go run ."
	}
	if os.Getenv("SUDO_COMMAND") != "" {
		self = "sudo " + self
	}
	return self
}
