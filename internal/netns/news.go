package netns

import (
	"encoding/binary"
	"slices"
	"syscall"
	"time"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// news calls told when the kernel has news of an interface of the current namespace, in some groups, until end
// is called. Where the kernel had to drop some, which may have been of it, told is called as well, and later
// ones come as before.
func news(index int, told func(), groups ...uint) (end func(), err error) {
	const pause = 10 * time.Millisecond
	s, err := nl.Subscribe(unix.NETLINK_ROUTE, groups...)
	if err != nil {
		return nil, err
	}
	ended := make(chan struct{})
	go func() {
		for {
			messages, _, err := s.Receive()
			select {
			case <-ended:
				return
			default:
			}
			if err != nil {
				time.Sleep(pause)
				drain(s)
			}
			if err != nil || slices.ContainsFunc(messages, func(m syscall.NetlinkMessage) bool { return concerns(m, index) }) {
				told()
			}
		}
	}()
	return func() {
		close(ended)
		s.Close()
	}, nil
}

// drain receives what waits. After the kernel had to drop news it drops all, and does not say so again, until
// nothing waits (netlink_overrun in net/netlink/af_netlink.c).
func drain(s *nl.NetlinkSocket) {
	for {
		p := []unix.PollFd{{Fd: int32(s.GetFd()), Events: unix.POLLIN}}
		if n, err := unix.Poll(p, 0); err != nil || n == 0 || p[0].Revents&unix.POLLIN == 0 {
			return
		}
		_, _, _ = s.Receive() // what is lost is looked after
	}
}

// concerns reports whether a message is of an interface, whose index stands in the same place of struct ifinfomsg
// and of struct ifaddrmsg (rtnetlink(7)).
func concerns(m syscall.NetlinkMessage, index int) bool {
	return len(m.Data) >= 8 && int(binary.NativeEndian.Uint32(m.Data[4:])) == index
}
