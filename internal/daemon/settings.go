package daemon

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"

	"tapsec/appliance"
	"tapsec/configs"
	"tapsec/internal/files"
	"tapsec/internal/logging"
	"tapsec/sa"
	"tapsec/tap"
)

// Settings are what a user asks of run, transport or send, which are one program with or
// without a NIC, with or without a transport. What is empty or 0 leaves the configuration
// as it is.
type Settings struct {
	Config               string   // file
	Keys                 []string // files with SAs in another tool's form
	Wire, Host           string
	WireNetns, HostNetns string
	Queues               int
	Form                 configs.Form
	Annotate             configs.Annotate
	Inactive             bool // receive offload stays off

	Stack   string   // the stack's TAP, which then replaces the host's; empty: no transport
	Attach  bool     // the wire exists already and is not to become a TAP of ours
	Seal    []string // SAs to seal with, innermost first
	Lines   logging.Options
	Ignored []string // flags that were given and have no effect here

	appliance.Options // of which Load, Transport, Use and Log are made of the others

	inForce func(*sa.SA) *sa.SA // of the running program; nil before it runs
}

// checkOutputs returns an error if the state file, or the one that is renamed to it, is an
// input.
func (s *Settings) checkOutputs() error {
	if s.State == "" {
		return nil
	}
	in, path := files.Inputs{Paths: append([]string{s.Config}, s.Keys...)}, s.State
	if real, err := filepath.EvalSymlinks(path); err == nil {
		path = real
	}
	return errors.Join(in.Refuse("--state", path), in.Refuse("--state", path+".new"))
}

// warnIgnored logs the flags without effect.
func (s *Settings) warnIgnored(log *logging.Log) {
	which := "without"
	if s.Stack == "" {
		which = "with"
	}
	for _, name := range s.Ignored {
		log.Logger().Warn("without effect: it is for a program "+which+" a transport", "flag", name)
	}
}

// options are the appliance that is asked for.
func (s *Settings) options(log *slog.Logger) appliance.Options {
	o := s.Options
	o.Load, o.Transport, o.Log = s.Load, s.Stack != "", log
	if len(s.Seal) > 0 {
		o.Use = [][]string{s.Seal}
	}
	return o
}

// Load reads the configuration and lays the settings over it.
func (s *Settings) Load() (*configs.Config, error) {
	c, err := s.read()
	if err != nil {
		return nil, err
	}
	override(&c.Wire.Name, s.Wire)
	override(&c.Host.Name, s.Host)
	override(&c.Host.Name, s.Stack)
	override(&c.Wire.Netns, s.WireNetns)
	override(&c.Host.Netns, s.HostNetns)
	c.Wire.Attach = s.Attach || c.Wire.Attach && !s.NoNIC // if the NIC is elsewhere, so is the wire of the file
	override(&c.Queues, s.Queues)
	override(&c.Host.Form, s.Form)
	override(&c.Host.Annotate, s.Annotate)
	c.Offload.Active = c.Offload.Active && !s.Inactive
	if s.Stack != "" {
		c.Host.Form, c.Host.Annotate, c.Host.Attach = configs.InPlace, configs.Trailer, false
	}
	return c, s.check(c)
}

// check finds what a running program cannot do.
func (s *Settings) check(c *configs.Config) error {
	if s.Stack != "" && c.Queues > 1 {
		return fmt.Errorf("%d queues: a transport has one; say --queues 1", c.Queues)
	}
	if err := CheckQueues(c.Queues); err != nil {
		return err
	}
	if c.Wire.Name == c.Host.Name && c.Wire.Netns == c.Host.Netns {
		return fmt.Errorf("both interfaces are %s: give them different names", c.Wire.Name)
	}
	return errors.Join(tap.CheckName(c.Wire.Name), tap.CheckName(c.Host.Name), c.Live())
}

// read reads the files. Each reload does so again.
func (s *Settings) read() (*configs.Config, error) {
	switch {
	case s.Config == "" && len(s.Keys) == 0 && s.Mirror:
		return configs.Default(), nil
	case s.Config == "" && len(s.Keys) == 0:
		return nil, errors.New("give the configuration with -c FILE; configs/minimal.yaml is the smallest sample")
	case slices.Contains(s.Keys, "-"):
		return nil, errors.New("-k -: expected a file, which a reload can read again")
	case s.Config == "":
		return s.takeOver()
	}
	c, err := configs.Reload(s.Config, s.inForce)
	if err != nil || len(s.Keys) == 0 {
		return c, err
	}
	more, err := s.takeOver()
	if err != nil {
		return nil, err
	}
	return c, c.Take(more)
}

// takeOver reads the SAs of other tools with which a running program goes on.
func (s *Settings) takeOver() (*configs.Config, error) {
	c, err := configs.LoadKeys(s.Keys, nil)
	if err != nil {
		return nil, err
	}
	c.TakeOver()
	return c, nil
}

// CheckQueues checks a number of queues.
func CheckQueues(n int) error {
	const most = 256 // of a TAP
	if n < 1 || n > most {
		return fmt.Errorf("--queues: expected 1 to %d, found %d", most, n)
	}
	return nil
}

// override replaces *v if a setting is given.
func override[T comparable](v *T, setting T) {
	*v = cmp.Or(setting, *v)
}
