// Package netns makes and enters network namespaces, and sets up the interfaces in them, over netlink.
package netns

import (
	"errors"
	"fmt"
	"runtime"

	"github.com/vishvananda/netlink"
	vish "github.com/vishvananda/netns"
)

// Names is the directory of the namespaces that have a name, as of `ip netns`.
const Names = "/run/netns"

// Namespace is a network namespace, held until Close.
type Namespace struct {
	handle vish.NsHandle
	made   string // its name, if New gave it one
}

// New makes a namespace with lo up. By a name `ip netns` and Open find it.
func New(name string) (*Namespace, error) {
	n := &Namespace{handle: vish.None(), made: name}
	err := returning(func() (err error) {
		if name == "" {
			n.handle, err = vish.New()
		} else {
			n.handle, err = vish.NewNamed(name)
		}
		if err != nil {
			return err
		}
		return Up("lo")
	})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("make network namespace %s: %w", name, err), n.Close())
	}
	return n, nil
}

// Open opens a namespace that `ip netns add` or New named.
func Open(name string) (*Namespace, error) {
	handle, err := vish.GetFromName(name)
	if err != nil {
		return nil, fmt.Errorf("network namespace %s: make it with `ip netns add %s` (%w)", name, name, err)
	}
	return &Namespace{handle: handle}, nil
}

// In is Do of the namespace with a name; without a name f runs where the caller is.
func In(name string, f func() error) error {
	if name == "" {
		return f()
	}
	n, err := Open(name)
	if err != nil {
		return err
	}
	defer n.Close()
	return n.Do(f)
}

// Close releases the namespace, and removes the name that New gave it. The kernel ends it, and its
// interfaces, with its last user.
func (n *Namespace) Close() error {
	if !n.handle.IsOpen() {
		return nil
	}
	err := n.handle.Close()
	if n.made != "" {
		err = errors.Join(err, vish.DeleteNamed(n.made))
	}
	return err
}

// Do runs f inside the namespace. What f makes there stays there: sockets, files, and processes that
// f itself starts. Goroutines that f starts run outside.
func (n *Namespace) Do(f func() error) error {
	return returning(func() error {
		if err := vish.Set(n.handle); err != nil {
			return fmt.Errorf("enter network namespace: %w", err)
		}
		return f()
	})
}

// Take moves an interface of the current namespace into this one, where it is then down. A TAP that ends
// with its program is refused: the program keeps alive the namespace in which it opened the TAP, not
// this one, and Linux (up to 6.18 at least) crashes if the TAP vanishes while this one ends.
func (n *Namespace) Take(name string) error {
	return Change(name, "move", func(link netlink.Link) error {
		if tap, ok := link.(*netlink.Tuntap); ok && tap.NonPersist {
			return errors.New("it vanishes with the program that holds it; open it inside the namespace instead")
		}
		return netlink.LinkSetNsFd(link, int(n.handle))
	})
}

// returning runs f on a thread of its own and brings the thread back to the namespace it came from.
// A thread that cannot go back stays locked, and so ends with its goroutine.
func returning(f func() error) error {
	result := make(chan error)
	go func() {
		runtime.LockOSThread()
		ours, err := vish.Get()
		if err != nil {
			runtime.UnlockOSThread()
			result <- err
			return
		}
		defer ours.Close()
		err = f()
		if back := vish.Set(ours); back != nil {
			result <- errors.Join(err, fmt.Errorf("leave network namespace: %w", back))
			return
		}
		runtime.UnlockOSThread()
		result <- err
	}()
	return <-result
}
