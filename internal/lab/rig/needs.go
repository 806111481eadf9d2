package rig

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"

	"golang.org/x/sys/unix"
)

// Need is one thing that a rig needs, and whether this process has it.
type Need struct {
	Name   string
	Met    bool
	Detail string // what was found, one sentence
	Remedy string // what to do about it; empty if met
}

// Needs looks for what a rig needs: the tun device, and user namespaces or CAP_NET_ADMIN.
func Needs() []Need {
	return []Need{tunDevice(), userNamespaces(), netAdmin()}
}

// NeedsTUN says what keeps this process from the tun device, and what to do; nil if nothing does.
func NeedsTUN() error {
	if n := tunDevice(); !n.Met {
		return errors.New(n.Detail + " " + n.Remedy)
	}
	return nil
}

func tunDevice() Need {
	n := Need{Name: "tun device"}
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err == nil {
		_, err = unix.IoctlGetInt(fd, unix.TUNGETFEATURES)
		unix.Close(fd)
	}
	switch {
	case errors.Is(err, unix.ENOTTY):
		n.Detail = "/dev/net/tun is another device."
		n.Remedy = "Remove it and make it: mknod /dev/net/tun c 10 200; a container is started with --device /dev/net/tun."
	case err == nil:
		n.Met, n.Detail = true, "/dev/net/tun can be opened."
	case errors.Is(err, os.ErrPermission):
		n.Detail = "/dev/net/tun exists, but this user may not open it."
		n.Remedy = "Run as root, or let root do: chmod 0666 /dev/net/tun; a container is started with --device /dev/net/tun."
	case errors.Is(err, os.ErrNotExist), errors.Is(err, unix.ENODEV), errors.Is(err, unix.ENXIO):
		n.Detail = "/dev/net/tun does not exist."
		n.Remedy = "Load the module (modprobe tun); a container is started with --device /dev/net/tun."
	default:
		n.Detail = fmt.Sprintf("/dev/net/tun cannot be opened: %v.", err)
		n.Remedy = "Ask whoever runs this machine or container for the tun device."
	}
	return n
}

// userNamespaces starts a program that does not exist: namespaces are made first, so "not found" means that
// they were granted.
func userNamespaces() Need {
	n := Need{Name: "user namespaces"}
	cmd := exec.Command("/nonexistent/tapsec")
	cmd.SysProcAttr = fresh(false)
	err := cmd.Start()
	if errors.Is(err, unix.ENOENT) {
		n.Met, n.Detail = true, "A user, network and mount namespace can be made."
		return n
	}
	n.Detail = fmt.Sprintf("The kernel refuses them: %v.", errors.Unwrap(err))
	_, remedy := advice(err)
	n.Remedy = strings.ToUpper(remedy[:1]) + remedy[1:] + "."
	return n
}

func netAdmin() Need {
	n := Need{Name: "CAP_NET_ADMIN", Met: hasCapability(unix.CAP_NET_ADMIN)}
	if n.Met {
		n.Detail = "This process may set up interfaces."
		return n
	}
	n.Detail = "This process may not set up interfaces in the namespace it runs in."
	n.Remedy = "Run as root, or: setcap cap_net_admin+ep on the program; demo and tests need it only where user namespaces are missing."
	return n
}

// privileged reports whether namespaces can be made without a user namespace around them.
func privileged() bool {
	return hasCapability(unix.CAP_SYS_ADMIN) && hasCapability(unix.CAP_NET_ADMIN)
}

// hasCapability looks at the effective set, which version 3 of the call returns as two words.
func hasCapability(number int) bool {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var sets [2]unix.CapUserData
	if err := unix.Capget(&header, &sets[0]); err != nil {
		return false
	}
	return sets[number/32].Effective&(1<<(number%32)) != 0
}
