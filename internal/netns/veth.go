package netns

import (
	"unsafe"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// OtherEnd is the other end of a veth, as far as it can be seen from the current namespace.
type OtherEnd struct {
	Name       string // empty where it is in another namespace
	LeavesSums bool   // checksums of what it sends are left to hardware, or it cannot be seen
}

// Behind returns what is behind a veth; false for any other interface.
func Behind(name string) (OtherEnd, bool) {
	link, err := netlink.LinkByName(name)
	if err != nil || link.Type() != "veth" {
		return OtherEnd{}, false
	}
	a := link.Attrs()
	if a.NetNsID >= 0 {
		return OtherEnd{LeavesSums: true}, true
	}
	other, err := netlink.LinkByIndex(a.ParentIndex)
	if err != nil {
		return OtherEnd{LeavesSums: true}, true
	}
	return OtherEnd{other.Attrs().Name, leavesSums(other.Attrs().Name)}, true
}

// leavesSums asks by ethtool's ioctl (ETHTOOL_GTXCSUM).
func leavesSums(name string) bool {
	const getTxSum = 0x16
	value := struct{ command, on uint32 }{command: getTxSum}
	request := struct {
		name  [unix.IFNAMSIZ]byte
		value unsafe.Pointer
		_     [16]byte
	}{value: unsafe.Pointer(&value)}
	copy(request.name[:unix.IFNAMSIZ-1], name)
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return true
	}
	defer unix.Close(fd)
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCETHTOOL, uintptr(unsafe.Pointer(&request)))
	return errno != 0 || value.on != 0
}
