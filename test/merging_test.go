package test

import (
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"tapsec/internal/lab/rig"
	"tapsec/internal/netns"
)

// A stack's TAP that stays is offered TCP segmentation while a program runs that is to have merged
// packets, and no longer: confined as it is, the program takes the offer back.
func TestMergingIsTakenBack(t *testing.T) {
	rig.Require(t)
	const stack = "mgs0"
	if err := netns.AddTAP(stack, false); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { netns.Delete(stack) })
	for unmerged, offered := range map[string]bool{"none": true, "gro": true, "tso": false, "all": false} {
		p := launch(t, write(t, moreSAs), "--wire", "mgw0", "--transport", stack, "--unmerged", unmerged)
		p.waitLog("msg=stack merged=")
		p.waitLog("msg=ready")
		if segments(t, stack) != offered {
			t.Errorf("--unmerged %s: TCP segmentation is %v, want %v", unmerged, !offered, offered)
		}
		p.stop()
		if segments(t, stack) {
			t.Errorf("--unmerged %s: TCP segmentation is on after the end", unmerged)
		}
	}
}

// segments reports whether an interface is left to cut TCP packets (ETHTOOL_GTSO in linux/ethtool.h).
func segments(t *testing.T, name string) bool {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	value := struct{ command, data uint32 }{command: 0x1e}
	request := struct {
		name [unix.IFNAMSIZ]byte
		data unsafe.Pointer
		_    [16]byte
	}{data: unsafe.Pointer(&value)}
	copy(request.name[:], name)
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCETHTOOL, uintptr(unsafe.Pointer(&request))); errno != 0 {
		t.Fatal(errno)
	}
	return value.data != 0
}
