package rig

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// Lock is the directory of a rig, locked against anybody else who would put one up under its name. The
// supervisor holds the lock too, for as long as it lives.
type Lock struct {
	dir  string
	lock *os.File
}

const dyingWithin = time.Second

// errTaken says that somebody else holds a lock.
var errTaken = errors.New("is up already")

// Acquire makes and locks the empty directory of a rig. It ends what is left of a rig that died.
func Acquire(name string) (*Lock, error) {
	if err := CheckName(name); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(home(), 0o700); err != nil {
		return nil, fmt.Errorf("directory for rigs: %w", err)
	}
	if !owner(home()) {
		return nil, fmt.Errorf("%s is not this user's alone; set XDG_RUNTIME_DIR to a directory that is", home())
	}
	dir := filepath.Join(home(), name)
	l, err := hold(dir, true)
	for deadline := time.Now().Add(dyingWithin); errors.Is(err, errTaken) && !stands(dir) && time.Now().Before(deadline); {
		time.Sleep(lookEvery)
		l, err = hold(dir, true)
	}
	switch {
	case errors.Is(err, errTaken):
		return nil, fmt.Errorf("rig %s %w; tapsec rig status %[1]s shows it, tapsec rig down %[1]s takes it down", name, err)
	case err != nil:
		return nil, err
	}
	if old, err := read(dir); err == nil {
		if err := old.end(); err != nil {
			return nil, errors.Join(err, l.Release())
		}
	}
	return l, l.empty()
}

// stands reports whether the supervisor in the directory's state lives. A killed one keeps the lock for a
// moment, until the kernel has ended all its threads.
func stands(dir string) bool {
	s, err := read(dir)
	return err == nil && s.Up()
}

// hold locks a directory, which it makes if necessary.
func hold(dir string, create bool) (*Lock, error) {
	for {
		if create {
			if err := os.MkdirAll(dir, 0o700); err != nil {
				return nil, err
			}
		}
		lock, err := os.Open(dir)
		if errors.Is(err, os.ErrNotExist) && create {
			continue // removed in between
		}
		if err != nil {
			return nil, err
		}
		if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
			lock.Close()
			if errors.Is(err, unix.EWOULDBLOCK) {
				return nil, errTaken
			}
			return nil, fmt.Errorf("lock %s: %w", dir, err)
		}
		held, err1 := lock.Stat()
		there, err2 := os.Stat(dir)
		if err1 == nil && err2 == nil && os.SameFile(held, there) {
			return &Lock{dir, lock}, nil
		}
		lock.Close() // of a directory that was just removed
	}
}

// Dir is the directory, for a configuration and whatever else the rig needs.
func (s *Lock) Dir() string { return s.dir }

// Release unlocks the directory and leaves it.
func (s *Lock) Release() error { return s.lock.Close() }

// Remove removes the directory.
func (s *Lock) Remove() error {
	err := errors.Join(os.RemoveAll(s.dir), s.lock.Close())
	_ = os.Remove(filepath.Dir(s.dir)) // it stays while it holds other rigs
	return err
}

func (s *Lock) empty() error {
	entries, err := os.ReadDir(s.dir)
	for _, e := range entries {
		err = errors.Join(err, os.RemoveAll(filepath.Join(s.dir, e.Name())))
	}
	return err
}
