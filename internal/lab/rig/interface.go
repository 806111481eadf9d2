package rig

// What tests do to interfaces besides what the product needs (package netns).

import (
	"errors"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"

	"tapsec/internal/netns"
)

// QuietTAPs makes TAPs, with several queues or one, to which the kernel sends no frames of its own; a TAP
// that a program makes is up before it can be kept quiet. remove deletes them again.
func QuietTAPs(multiQueue bool, names ...string) (remove func() error, err error) {
	return makeAll(names, func(name string) error { return netns.AddTAP(name, multiQueue) }, netns.Quiet)
}

// FarEnd is the name of the other end of a veth that QuietVeths made.
func FarEnd(name string) string { return name + "-far" }

// QuietVeths makes veths, with that MTU on both ends, that are up and on which the kernel sends no frames of
// its own. remove deletes them again.
func QuietVeths(mtu int, names ...string) (remove func() error, err error) {
	return makeAll(names, func(name string) error {
		return netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: name, MTU: mtu}, PeerName: FarEnd(name), PeerMTU: uint32(mtu)})
	}, func(name string) error {
		return errors.Join(netns.Up(name), netns.Up(FarEnd(name)), netns.Ready(name, FarEnd(name)))
	})
}

// makeAll makes interfaces and prepares each. On an error none is left.
func makeAll(names []string, add, ready func(name string) error) (remove func() error, err error) {
	var made []string
	remove = func() (err error) {
		for _, name := range made {
			err = errors.Join(err, netns.Delete(name))
		}
		return err
	}
	for _, name := range names {
		if err := add(name); err != nil {
			return nil, errors.Join(err, remove())
		}
		made = append(made, name)
		if err := ready(name); err != nil {
			return nil, errors.Join(err, remove())
		}
	}
	return remove, nil
}

// Down takes an interface down.
func Down(name string) error { return netns.Change(name, "take down", netlink.LinkSetDown) }

// SetMAC sets an interface's hardware address.
func SetMAC(name string, mac net.HardwareAddr) error {
	return netns.Change(name, "set the address of", func(link netlink.Link) error { return netlink.LinkSetHardwareAddr(link, mac) })
}

// Flush removes all addresses of an interface.
func Flush(name string) error {
	return netns.Change(name, "flush", func(link netlink.Link) error {
		all, err := netlink.AddrList(link, netlink.FAMILY_ALL)
		for i := range all {
			err = errors.Join(err, netlink.AddrDel(link, &all[i]))
		}
		return err
	})
}

// Rename gives an interface another name.
func Rename(name, to string) error {
	return netns.Change(name, "rename", func(link netlink.Link) error { return netlink.LinkSetName(link, to) })
}

// Neighbour sets, permanently, the hardware address of an address behind the interface.
func Neighbour(name string, addr netip.Addr, mac net.HardwareAddr) error {
	return netns.Change(name, "add a neighbour to", func(link netlink.Link) error {
		return netlink.NeighSet(&netlink.Neigh{LinkIndex: link.Attrs().Index, State: netlink.NUD_PERMANENT,
			IP: addr.AsSlice(), HardwareAddr: mac})
	})
}

// Route routes a destination through an interface, by a gateway unless that is the zero Addr.
func Route(name string, to netip.Prefix, gateway netip.Addr) error {
	dst := &net.IPNet{IP: to.Masked().Addr().AsSlice(), Mask: net.CIDRMask(to.Bits(), to.Addr().BitLen())}
	return netns.Change(name, "route through", func(link netlink.Link) error {
		return netlink.RouteAdd(&netlink.Route{LinkIndex: link.Attrs().Index, Dst: dst, Gw: gateway.AsSlice()})
	})
}
