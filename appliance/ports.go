//go:build linux

package appliance

import (
	"context"
	"errors"
	"net"

	"tapsec/configs"
	"tapsec/internal/netns"
	"tapsec/internal/nic"
	"tapsec/status"
	"tapsec/tap"
)

// room is how many bytes of a frame are moved: the longest IP packet, addresses,
// EtherType, up to two VLAN tags, and a trailer. So a frame fits whatever the MTU
// becomes; the unused part of a slot takes no memory.
const room = 40 + 65535 + 14 + 2*4 + status.MaxTrailer

// maxTAP is the largest MTU of a TAP.
const maxTAP = 65521

// ports are the two open interfaces. An attached one has counted drops for as long as it exists, so the
// earlier ones are remembered.
type ports struct {
	wire, host             *tap.Device
	wireBefore, hostBefore tap.Drops
	wireWatch, hostWatch   *netns.Watch

	steering tap.Steering // of frames from the wire
	steerWhy string
}

// openPorts opens the two TAPs, making those that do not exist, in the namespaces that
// the configuration names, and brings them up; with attach it opens existing interfaces
// of any kind. A new host TAP gets the wire's MTU. On an error nothing is left behind.
func openPorts(c *configs.Config, o *Options) (*ports, error) {
	p := &ports{}
	if err := p.open(c, o); err != nil {
		return nil, errors.Join(err, p.close())
	}
	return p, nil
}

func (p *ports) open(c *configs.Config, o *Options) (err error) {
	if p.wire, err = openPort(c.Wire, tap.Config{Queues: c.Queues, Merging: o.wireMerging()}); err != nil {
		return err
	}
	if p.wireWatch, err = watch(c.Wire); err != nil {
		return err
	}
	mtu, err := p.wireWatch.MTU()
	if err != nil {
		return err
	}
	if p.host, err = openPort(c.Host.Interface, tap.Config{Queues: c.Queues, Fresh: min(mtu, maxTAP), Merging: o.stackMerging()}); err != nil {
		return err
	}
	if p.hostWatch, err = watch(c.Host.Interface); err != nil {
		return err
	}
	var err1, err2, err3 error
	p.wireBefore, err1 = p.wire.Drops()
	p.hostBefore, err2 = p.host.Drops()
	p.steering, p.steerWhy, err3 = p.wire.Steer(o.Steering)
	return errors.Join(err1, err2, err3, p.host.Up(), p.wire.Up())
}

// openPort attaches an interface, or opens one TAP inside the namespace asked for. That
// keeps the namespace alive for as long as the TAP is open: a TAP made elsewhere and
// moved there could vanish with it, which some kernels do not survive. A TAP that
// `ip tuntap add` made here is moved first, if the namespace has none of that name.
func openPort(i configs.Interface, want tap.Config) (d *tap.Device, err error) {
	if i.Attach {
		err = netns.In(i.Netns, func() error {
			d, err = tap.AttachQueues(i.Name, want.Queues)
			return err
		})
		return d, err
	}
	want.Name, want.MTU = i.Name, i.MTU
	if i.Netns == "" {
		return tap.Open(want)
	}
	ns, err := netns.Open(i.Netns)
	if err != nil {
		return nil, err
	}
	defer ns.Close()
	there := func() error { _, err := net.InterfaceByName(i.Name); return err }
	if there() == nil && ns.Do(there) != nil {
		if err := give(ns, want); err != nil {
			return nil, err
		}
	}
	err = ns.Do(func() error {
		d, err = tap.Open(want)
		return err
	})
	return d, err
}

// give moves a TAP into a namespace. It opens the TAP first, which shows that it is persistent and not in
// use.
func give(ns *netns.Namespace, want tap.Config) error {
	d, err := tap.Open(want)
	if err != nil {
		return err
	}
	return errors.Join(d.Close(), ns.Take(want.Name))
}

// join makes the NIC between the two ports.
func (p *ports) join(o *Options, inward, outward nic.Chain, opened func()) (*nic.NIC, error) {
	return nic.New(nic.Config{
		Wire: p.wire, Host: p.host, Chain: inward, Outward: outward, Engine: o.Engine, BusyPoll: o.BusyPoll, Opened: opened,
		Merging: o.wireMerging(), Room: room, Tail: status.Tailroom,
	})
}

// warnOfSums warns of what AF_XDP does not report about frames from a veth, whose other end leaves work
// to hardware that there is not.
func (a *Appliance) warnOfSums() {
	for _, i := range []configs.Interface{a.config.Wire, a.config.Host.Interface} {
		if !i.Attach {
			continue
		}
		var end netns.OtherEnd
		var veth bool
		err := netns.In(i.Netns, func() error { end, veth = netns.Behind(i.Name); return nil })
		if err != nil || !veth || !end.LeavesSums {
			continue
		}
		other, peer := "its other end, which is in another namespace and may leave", "PEER"
		if end.Name != "" {
			other, peer = end.Name+", its other end, which leaves", end.Name
		}
		a.log.Warn("AF_XDP does not say which checksums are unfinished", "interface", i.Name,
			"why", "they come from "+other+" them to hardware: those of TCP, UDP and SCTP are recognised by the frame, and finished; those after a tunnel's headers pass as they are, and VLAN tags that it keeps apart are lost",
			"do", "ethtool -K "+peer+" tx off txvlan off, or choose ring")
	}
}

// ready waits until the kernel sends through both ports, or until ctx ends; that takes a moment if one was up
// before it was opened.
func (p *ports) ready(ctx context.Context) error {
	return errors.Join(p.wireWatch.Ready(ctx), p.hostWatch.Ready(ctx))
}

// follow tells when an interface goes down or comes up.
func (p *ports) follow(wire, host func(up bool)) {
	p.wireWatch.Follow(wire)
	p.hostWatch.Follow(host)
}

// look notices changes whose news from the kernel was lost, and calls left with what is no longer there.
func (p *ports) look(left func(name string)) {
	for d, w := range map[*tap.Device]*netns.Watch{p.wire: p.wireWatch, p.host: p.hostWatch} {
		if w.Look(); w.Left() {
			left(d.Name())
		}
	}
}

// watch opens a view of an interface that can be read without entering its namespace.
func watch(i configs.Interface) (w *netns.Watch, err error) {
	err = netns.In(i.Netns, func() error {
		w, err = netns.NewWatch(i.Name)
		return err
	})
	return w, err
}

// mtu is the wire's MTU in bytes: the smaller of the interface's and the configuration's.
func (p *ports) mtu(c *configs.Config) (int, error) {
	const longest = 65535 // a loopback interface has a larger one
	mtu, err := p.wireWatch.MTU()
	if c.Wire.MTU > 0 {
		mtu = min(mtu, c.Wire.MTU)
	}
	return min(mtu, longest), err
}

func (p *ports) close() error {
	for _, w := range []*netns.Watch{p.wireWatch, p.hostWatch} {
		if w != nil {
			w.Close()
		}
	}
	var all error
	for _, d := range []*tap.Device{p.host, p.wire} {
		if d != nil {
			all = errors.Join(all, d.Close())
		}
	}
	return all
}
