package hosts

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"tapsec/configs"
	"tapsec/internal/lab/rig"
	"tapsec/sa"
	"tapsec/tap"
)

// Options are what a rig of two hosts may be like.
type Options struct {
	Name         string
	Config       string      // a file for both hosts; empty: a built-in one with fresh keys, by the next two fields
	Profile      sa.Profile  // what the NIC can do
	ClearAnswers bool        // protect only what a sends
	Split        bool        // NIC and transport as two programs
	Unmerged     tap.Merging // what does not pass merged between a transport and its stack
}

// Check takes the profile's name, "" for the default, and checks the options and the user's
// configuration before anything is made. An error names the flag of tapsec rig up.
func (o *Options) Check(profile string) (err error) {
	given := profile != ""
	if !given {
		profile = "full"
	}
	if o.Profile, err = sa.ProfileByName(profile); err != nil {
		return fmt.Errorf("--profile: %w", err)
	}
	if o.Config == "" {
		return nil
	}
	if given || o.ClearAnswers {
		return errors.New("--profile and --clear-answers are for the built-in configuration; say it in that of -c")
	}
	if o.Config, err = filepath.Abs(o.Config); err != nil {
		return err
	}
	_, err = configs.Load(o.Config)
	return err
}

// Up puts a rig up in the background. On an error nothing is left of it.
func Up(ctx context.Context, o Options) (*rig.State, error) {
	if err := rig.NeedsTUN(); err != nil {
		return nil, err
	}
	lock, err := rig.Acquire(o.Name)
	if err != nil {
		return nil, err
	}
	plan := &rig.State{Name: o.Name, Config: o.Config, Hosts: Plan()}
	if o.Config == "" {
		plan.Config = filepath.Join(lock.Dir(), "rig.yaml")
		err = os.WriteFile(plan.Config, configs.Rig(o.Profile, !o.ClearAnswers), 0o600)
	}
	plan.Programs = programs(lock.Dir(), plan.Config, &o)
	if err == nil {
		err = lock.Start(ctx, plan, "rig", "supervise", lock.Dir())
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("rig %s: %w", o.Name, err), lock.Remove())
	}
	return plan, lock.Release()
}

// programs run in the NIC's namespace, receivers first. Their control sockets and state
// files are in dir.
func programs(dir, config string, o *Options) []rig.Program {
	program := func(name string, args ...string) rig.Program {
		control := filepath.Join(dir, name+".sock")
		if name != "nic" {
			args = append(args, "--state", filepath.Join(dir, name+".state"), "--unmerged", o.Unmerged.String())
		}
		return rig.Program{Name: name, Control: control, Args: append(args, "-c", config, "--control", control)}
	}
	send := program("send", "send", "--stack", "stack0", "--stack-netns", "a", "--out", "wire0")
	if o.Split {
		return []rig.Program{
			program("nic", "run", "--wire", "wire0", "--host", "host0"),
			program("transport", "transport", "--in", "host0", "--out", "stack0", "--stack-netns", "b", "--nic", filepath.Join(dir, "nic.sock")),
			send,
		}
	}
	return []rig.Program{program("run", "run", "--wire", "wire0", "--transport", "stack0", "--stack-netns", "b"), send}
}
