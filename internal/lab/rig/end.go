package rig

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

const (
	politeness = time.Second     // for guests to end by themselves
	endWithin  = 5 * time.Second // for the kernel to end what was killed
	lookEvery  = 5 * time.Millisecond
)

// TakeDown takes a rig down, whether it is up, being put up, or has died: it ends every process in its
// namespaces, which end with them, and removes its directory.
func TakeDown(name string) error {
	s, err := Find(name)
	if errors.Is(err, ErrDown) { // perhaps it never got as far as writing its state
		if lock, held := hold(filepath.Join(home(), name), false); held == nil {
			return errors.Join(err, lock.Remove())
		}
	}
	if err != nil {
		return err
	}
	for deadline := time.Now().Add(endWithin); ; time.Sleep(lookEvery) {
		if err := s.end(); err != nil {
			return err
		}
		lock, err := hold(s.dir, false)
		switch {
		case err == nil:
			return lock.Remove()
		case errors.Is(err, os.ErrNotExist): // whoever was putting it up has removed it
			return nil
		case !errors.Is(err, errTaken):
			return fmt.Errorf("take rig %s down: %w", name, err)
		case time.Now().After(deadline):
			return fmt.Errorf("rig %s is being put up by somebody; try again", name)
		}
		if again, err := read(s.dir); err == nil { // it may have got further
			s = again
		}
	}
}

// end ends every process of the rig. Guests, which its user started in it, are first asked to end.
func (s *State) end() error {
	if len(s.spaces("self")) > 0 && os.Getenv(idVar) == s.ID {
		return fmt.Errorf("this is inside rig %s; leave it first", s.Name)
	}
	own := s.own()
	guests := func() ([]Process, error) {
		all, err := s.processes()
		return slices.DeleteFunc(all, func(p Process) bool { return slices.Contains(own, p) }), err
	}
	if err := tell(guests, politeness, unix.SIGHUP, unix.SIGTERM, unix.SIGCONT); err != nil && !errors.Is(err, errLeft) {
		return err
	}
	return tell(s.processes, endWithin, unix.SIGKILL)
}

// own returns the supervisor and the programs.
func (s *State) own() []Process {
	own := []Process{s.Supervisor}
	for _, p := range s.Programs {
		own = append(own, p.Process)
	}
	return own
}

// errLeft says that processes are left.
var errLeft = errors.New("processes do not end")

// tell signals each process of a list once, until the list is empty and all have ended; a process leaves
// its namespaces before it ends.
func tell(list func() ([]Process, error), within time.Duration, signals ...os.Signal) error {
	told := map[Process]bool{}
	for deadline := time.Now().Add(within); ; time.Sleep(lookEvery) {
		left, err := list()
		if err != nil {
			return err
		}
		maps.DeleteFunc(told, func(p Process, _ bool) bool { return !p.Alive() })
		if len(left) == 0 && len(told) == 0 {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%w: %v", errLeft, slices.Collect(maps.Keys(told)))
		}
		for _, p := range left {
			if told[p] {
				continue
			}
			told[p] = true
			if err := p.signal(signals...); err != nil {
				return err
			}
		}
	}
}

// processes finds the live ones: the rig's own, and all in its namespaces. The kernel reuses the numbers of
// namespaces that are gone, so a namespace is only the rig's if a process in it was started with the rig's
// ID.
func (s *State) processes() ([]Process, error) {
	all, err := pids()
	if err != nil {
		return nil, err
	}
	in, proven := map[string][]Process{}, map[string]bool{}
	for _, pid := range all {
		spaces := s.spaces(strconv.Itoa(pid))
		p, err := ProcessOf(pid)
		if len(spaces) == 0 || err != nil { // with an error it has ended meanwhile
			continue
		}
		marked := environment(pid, idVar+"="+s.ID)
		for _, space := range spaces {
			in[space] = append(in[space], p)
			proven[space] = proven[space] || marked
		}
	}
	found := map[Process]bool{}
	for _, p := range s.own() { // those may have left its namespaces, about to end
		found[p] = p.Alive()
	}
	for space, processes := range in {
		for _, p := range processes {
			found[p] = found[p] || proven[space]
		}
	}
	maps.DeleteFunc(found, func(_ Process, ours bool) bool { return !ours })
	return slices.Collect(maps.Keys(found)), nil
}

// spaces returns those namespaces of a process that have the numbers of the rig's.
func (s *State) spaces(pid string) []string {
	var ours []string
	for _, kind := range []string{"net", "mnt"} {
		name := space(pid, kind)
		for _, n := range s.Spaces {
			if name == n && name != "" {
				ours = append(ours, name)
			}
		}
	}
	return ours
}
