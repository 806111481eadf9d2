package rig

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// State is a rig that stays up in the background until it is taken down. Its supervisor holds the
// namespaces, runs the programs, and keeps this state.
type State struct {
	Name       string            `json:"name"`
	ID         string            `json:"id"` // in the environment of every process of the rig
	Since      time.Time         `json:"since"`
	Rootless   bool              `json:"rootless"`
	Config     string            `json:"config"`
	Supervisor Process           `json:"supervisor"`
	Spaces     map[string]string `json:"namespaces"` // the network namespace of each host, and the one mount namespace, as the kernel names them
	Hosts      []Host            `json:"hosts"`
	Programs   []Program         `json:"programs"` // in the order in which they start

	dir string
}

// Host is a network namespace of a standing rig.
type Host struct {
	Name      string         `json:"name"`
	Interface string         `json:"interface,omitempty"` // a TAP that a program attaches to; empty: none, and the namespace is the supervisor's own
	MTU       int            `json:"mtu,omitempty"`       // of the TAP, in bytes
	Addresses []netip.Prefix `json:"addresses,omitempty"` // of the TAP
}

// Program is this very program with other arguments. It runs in the supervisor's namespaces, and says
// msg=ready on its standard error once it works.
type Program struct {
	Name    string   `json:"name"`
	Args    []string `json:"args"`
	Control string   `json:"control,omitempty"` // its control socket
	Process Process  `json:"process"`
	Ended   string   `json:"ended,omitempty"` // how, and its last words; empty while it runs
}

const (
	stateFile  = "state.json"
	logFile    = "log"
	spaceMount = "mount" // in Spaces
	idVar      = "TAPSEC_RIG_ID"
)

// ErrDown says that there is no rig of that name.
var ErrDown = errors.New("is not up")

// Dir is the rig's directory: its configuration, its log, its control sockets.
func (s *State) Dir() string { return s.dir }

// Log is the file to which the supervisor and all programs write.
func (s *State) Log() string { return filepath.Join(s.dir, logFile) }

// Up reports whether the rig stands: its supervisor lives. Programs may have ended all the same.
func (s *State) Up() bool { return s.Supervisor.Alive() }

// Find reads what a rig is made of, whether it is up or has died. If there is none of that name, the
// error wraps ErrDown and names those that exist.
func Find(name string) (*State, error) {
	if err := CheckName(name); err != nil {
		return nil, err
	}
	s, err := read(filepath.Join(home(), name))
	if errors.Is(err, os.ErrNotExist) {
		err = fmt.Errorf("rig %s %w; %s", name, ErrDown, others(name))
	}
	return s, err
}

// others says which rigs there are, or how to put one up.
func others(name string) string {
	names := Names()
	if len(names) == 0 {
		return fmt.Sprintf("tapsec rig up %s puts it up", name)
	}
	return "there is " + strings.Join(names, ", ")
}

// Names returns the names of all rigs that can be read.
func Names() (names []string) {
	all, _ := All()
	for _, s := range all {
		names = append(names, s.Name)
	}
	return names
}

// All finds all rigs of this user, sorted by name.
func All() ([]*State, error) {
	entries, err := os.ReadDir(home())
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	var all []*State
	for _, e := range entries {
		if s, err := read(filepath.Join(home(), e.Name())); err == nil {
			all = append(all, s)
		} else if !errors.Is(err, os.ErrNotExist) {
			return nil, err
		}
	}
	return all, nil
}

func read(dir string) (*State, error) {
	text, err := os.ReadFile(filepath.Join(dir, stateFile))
	if err != nil {
		return nil, err
	}
	s := &State{dir: dir}
	if err := json.Unmarshal(text, s); err != nil {
		return nil, fmt.Errorf("%s: %w", dir, err)
	}
	return s, nil
}

// save replaces the state file at once, so that nobody reads half of one.
func (s *State) save() error {
	text, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return err
	}
	next := filepath.Join(s.dir, stateFile+".next")
	if err := os.WriteFile(next, append(text, '\n'), 0o600); err != nil {
		return err
	}
	return os.Rename(next, filepath.Join(s.dir, stateFile))
}

// home is the directory of all rigs of this user: in XDG_RUNTIME_DIR, for root in /run, else where
// temporary files go.
func home() string {
	if dir := os.Getenv("XDG_RUNTIME_DIR"); filepath.IsAbs(dir) && owner(dir) {
		return filepath.Join(dir, "tapsec")
	}
	if os.Geteuid() == 0 && unix.Access("/run", unix.W_OK) == nil {
		return "/run/tapsec"
	}
	return filepath.Join(os.TempDir(), fmt.Sprintf("tapsec-%d", os.Geteuid()))
}

var rigName = regexp.MustCompile(`^[a-zA-Z0-9_-]{1,32}$`)

// CheckName allows names that are file names and need no quoting.
func CheckName(name string) error {
	if !rigName.MatchString(name) {
		return fmt.Errorf("expected a rig's name of 1 to 32 letters, digits, - and _, found %q", name)
	}
	return nil
}
