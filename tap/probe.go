package tap

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

const controlFile = "/dev/net/tun"

// existing is what probe learnt about an interface.
type existing struct {
	exists bool // and is a persistent TAP
	multi  bool // made for several queues
}

// probe looks at the interface before the TAP library touches it, which neither asks whether it is
// persistent nor takes a second guess at its queue mode:
//
//  1. open the control file, so that its errors are told apart from the interface's;
//  2. stop if there is no interface of that name;
//  3. attach as a TAP with one queue, else with several: the kernel refuses the wrong one;
//  4. ask for its flags. One that is not persistent belongs to a program that holds it.
func probe(name string) (existing, error) {
	fd, err := unix.Open(controlFile, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return existing{}, explainControl(err)
	}
	defer unix.Close(fd)
	ifr, err := unix.NewIfreq(name)
	if err != nil {
		return existing{}, fmt.Errorf("interface name %q: %w", name, err)
	}
	if !present(*ifr) {
		return existing{}, nil
	}
	err = attach(fd, ifr, 0)
	if errors.Is(err, unix.EINVAL) {
		err = attach(fd, ifr, unix.IFF_MULTI_QUEUE)
	}
	if err != nil {
		return existing{}, explain(name, err)
	}
	if err := unix.IoctlIfreq(fd, unix.TUNGETIFF, ifr); err != nil {
		return existing{}, explain(name, err)
	}
	if ifr.Uint16()&unix.IFF_PERSIST == 0 {
		return existing{}, explain(name, unix.EBUSY)
	}
	return existing{exists: true, multi: ifr.Uint16()&unix.IFF_MULTI_QUEUE != 0}, nil
}

func attach(fd int, ifr *unix.Ifreq, flags uint16) error {
	ifr.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI | flags)
	return unix.IoctlIfreq(fd, unix.TUNSETIFF, ifr)
}

// present tells whether the current namespace has the interface.
func present(ifr unix.Ifreq) bool {
	err := interfaceIoctl(unix.SIOCGIFFLAGS, &ifr)
	return !errors.Is(err, unix.ENODEV)
}

// interfaceIoctl asks the current namespace about the interface that ifr names.
func interfaceIoctl(request uint, ifr *unix.Ifreq) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return unix.IoctlIfreq(fd, request, ifr)
}

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
	case errors.Is(err, unix.E2BIG):
		what = "takes no more queues: ask for fewer"
	case errors.Is(err, unix.EBADFD), errors.Is(err, unix.ENODEV):
		err, what = ErrGone, "cannot be used"
	default:
		what = "cannot be opened"
	}
	return fmt.Errorf("interface %s %s (%w)", name, what, err)
}
