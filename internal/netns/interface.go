package netns

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// addressModeNone is IN6_ADDR_GEN_MODE_NONE of linux/if_link.h: no link-local address of its own.
const addressModeNone = 1

// AddTAP makes a persistent TAP, as `ip tuntap add` does.
func AddTAP(name string, multiQueue bool) error {
	tap := &netlink.Tuntap{LinkAttrs: netlink.LinkAttrs{Name: name}, Mode: netlink.TUNTAP_MODE_TAP,
		Flags: netlink.TUNTAP_NO_PI | netlink.TUNTAP_ONE_QUEUE}
	if multiQueue {
		tap.Queues, tap.Flags = 1, netlink.TUNTAP_NO_PI|netlink.TUNTAP_MULTI_QUEUE
	}
	if err := netlink.LinkAdd(tap); err != nil {
		return fmt.Errorf("add TAP %s: %w", name, err)
	}
	for _, f := range tap.Fds {
		f.Close()
	}
	return nil
}

// Delete deletes an interface, even one in use.
func Delete(name string) error { return Change(name, "delete", netlink.LinkDel) }

// Up brings an interface up and keeps it quiet: it makes no IPv6 address of its own, so it sends no
// solicitations.
func Up(name string) error {
	return Change(name, "bring up", func(link netlink.Link) error {
		return errors.Join(quiet(link), netlink.LinkSetUp(link))
	})
}

// Quiet keeps an interface from making an IPv6 address of its own.
func Quiet(name string) error { return Change(name, "quiet", quiet) }

func quiet(link netlink.Link) error {
	err := netlink.LinkSetIP6AddrGenMode(link, addressModeNone)
	if NoIPv6(err) {
		return nil
	}
	return err
}

// NoIPv6 reports whether an error says that the kernel has no IPv6.
func NoIPv6(err error) bool {
	return errors.Is(err, unix.EAFNOSUPPORT) || errors.Is(err, unix.EOPNOTSUPP)
}

// readyWithin is how long an interface may take; on a busy machine the kernel's second takes longer.
const readyWithin = 10 * time.Second

// Ready waits until interfaces that are up really send. One that came up before its other end (a veth's
// peer, or the program of a TAP) drops what is sent for up to a second longer.
func Ready(names ...string) error {
	deadline := time.Now().Add(readyWithin)
	for _, name := range names {
		if err := ready(context.Background(), name, deadline, func() (netlink.Link, error) { return netlink.LinkByName(name) }); err != nil {
			return err
		}
	}
	return nil
}

func ready(ctx context.Context, name string, deadline time.Time, look func() (netlink.Link, error)) error {
	for ctx.Err() == nil {
		link, err := look()
		if err != nil {
			return fmt.Errorf("wait for %s: %w", name, err)
		}
		if a := link.Attrs(); a.Flags&net.FlagUp != 0 && (a.OperState == netlink.OperUp || a.OperState == netlink.OperUnknown) {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%s still does not send: bring it up, and have its other end held", name)
		}
		time.Sleep(time.Millisecond)
	}
	return ctx.Err()
}

// SetMTU sets an interface's MTU in bytes, without the Ethernet header.
func SetMTU(name string, mtu int) error {
	return Change(name, "set the MTU of", func(link netlink.Link) error { return netlink.LinkSetMTU(link, mtu) })
}

// SetQueueLength sets how many frames may wait in an interface, in a TAP for the program that reads it.
func SetQueueLength(name string, frames int) error {
	return Change(name, "set the queue length of", func(link netlink.Link) error { return netlink.LinkSetTxQLen(link, frames) })
}

// LongQueues has each TAP of the current namespace hold so many frames for whoever reads it that a burst
// of a TCP flow, or two programs that wait for one core, lose none.
func LongQueues() error {
	const frames = 10000
	links, err := netlink.LinkList()
	if err != nil {
		return fmt.Errorf("list the interfaces: %w", err)
	}
	for _, link := range links {
		if link.Type() == "tuntap" {
			err = errors.Join(err, SetQueueLength(link.Attrs().Name, frames))
		}
	}
	return err
}

// Counters reads the kernel's counters of an interface, named from the kernel's side: Tx is what it gave
// to the program of a TAP.
func Counters(name string) (netlink.LinkStatistics, error) {
	var counters netlink.LinkStatistics
	err := Change(name, "read the counters of", func(link netlink.Link) error {
		counters = *link.Attrs().Statistics
		return nil
	})
	return counters, err
}

// Address gives an interface an address with its prefix length. IPv6 addresses work at once, without
// duplicate detection.
func Address(name string, prefix netip.Prefix) error {
	return Change(name, "give an address to", func(link netlink.Link) error {
		addr := &netlink.Addr{IPNet: ipNet(prefix)}
		if prefix.Addr().Is6() {
			addr.Flags = unix.IFA_F_NODAD
		}
		return netlink.AddrAdd(link, addr)
	})
}

// Change calls do with an interface. An error names it and says what was to be done.
func Change(name, what string, do func(netlink.Link) error) error {
	link, err := netlink.LinkByName(name)
	if err == nil {
		err = do(link)
	}
	if err != nil {
		return fmt.Errorf("%s %s: %w", what, name, err)
	}
	return nil
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}
