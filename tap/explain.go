package tap

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// explained is an error that names what it is about and says what to do.
type explained struct{ error }

func (e explained) Unwrap() error { return e.error }

func explainControl(err error) error {
	switch {
	case errors.Is(err, unix.EACCES), errors.Is(err, unix.EPERM):
		return fmt.Errorf("%s may not be opened: run as root, or let this user read and write it; in a container pass the device in (%w)", controlFile, os.ErrPermission)
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENODEV), errors.Is(err, unix.ENXIO):
		return fmt.Errorf("%s is not there: load the tun module (modprobe tun); in a container pass the device in (%w)", controlFile, os.ErrNotExist)
	}
	return fmt.Errorf("open %s: %w", controlFile, err)
}

// explain turns the kernel's answer about an interface into what to do about it.
func explain(name string, err error) error {
	var what string
	switch {
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES):
		what = fmt.Sprintf("needs CAP_NET_ADMIN: run as root, or have it made for this user with `ip tuntap add dev %s mode tap user NAME`", name)
	case errors.Is(err, unix.EBUSY):
		what = "is held by another program: stop that program or choose another name"
	case errors.Is(err, unix.EINVAL):
		what = "is not a TAP: choose another name, or delete that interface"
	case errors.Is(err, unix.ENOTTY):
		what = "cannot be made, since " + controlFile + " is another device: make it with `mknod " + controlFile + " c 10 200`"
	case errors.Is(err, unix.E2BIG):
		what = "takes no more queues: ask for fewer"
	case errors.Is(err, unix.EBADFD), errors.Is(err, unix.ENODEV):
		err, what = ErrGone, "cannot be used"
	default:
		what = "cannot be opened"
	}
	return fmt.Errorf("interface %s %s (%w)", name, what, err)
}
