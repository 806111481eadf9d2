package appliance

import (
	"errors"
	"net"

	"tapsec/configs"
	"tapsec/internal/netns"
	"tapsec/internal/nic"
	"tapsec/status"
	"tapsec/tap"
)

// linkHeader is what a frame is longer than its interface's MTU: addresses and
// EtherType, and up to two VLAN tags.
const linkHeader = 14 + 2*4

// ports are the two open TAPs, and what the kernel had dropped on them before:
// one that is attached to counts for as long as it exists.
type ports struct {
	wire, host             *tap.Device
	wireBefore, hostBefore tap.Drops
	wireWatch, hostWatch   *netns.Watch

	steering tap.Steering // of what comes from the wire
	steerWhy string
}

// openPorts makes the two TAPs, or takes those that are there, puts them where
// the configuration wants them, and brings them up. With attach the wire is an
// interface of somebody else's. On an error nothing is left behind.
func openPorts(c *configs.Config, attach bool, steer tap.Steering) (*ports, error) {
	open := openPort
	if attach {
		open = attachPort
	}
	wire, err := open(c.Wire, c.Queues)
	if err != nil {
		return nil, err
	}
	host, err := openPort(c.Host.Interface, c.Queues)
	if err != nil {
		return nil, errors.Join(err, wire.Close())
	}
	p := &ports{wire: wire, host: host}
	var err1, err2, err3, err4, err5 error
	p.wireWatch, err4 = watch(c.Wire)
	p.hostWatch, err5 = watch(c.Host.Interface)
	p.wireBefore, err1 = wire.Drops()
	p.hostBefore, err2 = host.Drops()
	p.steering, p.steerWhy, err3 = wire.Steer(steer)
	if err := errors.Join(err1, err2, err3, err4, err5, host.Up(), wire.Up()); err != nil {
		return nil, errors.Join(err, p.close())
	}
	return p, nil
}

// attachPort takes part in an interface that exists.
func attachPort(i configs.Interface, _ int) (d *tap.Device, err error) {
	err = in(i.Netns, func() error {
		d, err = tap.Attach(i.Name)
		return err
	})
	return d, err
}

// openPort opens one TAP inside the namespace asked for, so that the namespace
// lives for as long as the TAP is open: a TAP that was made elsewhere and moved
// there could vanish while it ends, which some kernels do not survive. One that
// `ip tuntap add` made here is moved first, if that namespace has none yet.
func openPort(i configs.Interface, queues int) (d *tap.Device, err error) {
	want := tap.Config{Name: i.Name, Queues: queues, MTU: i.MTU}
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

// give moves a TAP into a namespace, once opening has shown that it is a
// persistent one and nobody's.
func give(ns *netns.Namespace, want tap.Config) error {
	d, err := tap.Open(want)
	if err != nil {
		return err
	}
	return errors.Join(d.Close(), ns.Take(want.Name))
}

// join makes the NIC between the two ports.
func (p *ports) join(c *configs.Config, o *Options, inward, outward nic.Chain, opened func()) (*nic.NIC, error) {
	return nic.New(nic.Config{
		Wire: p.wire, Host: p.host, Chain: inward, Outward: outward, Engine: o.Engine, BusyPoll: o.BusyPoll, Opened: opened,
		Room: room(c), Tail: status.Tailroom,
	})
}

// room is the longest frame that is moved, in bytes.
func room(c *configs.Config) int { return max(c.Wire.MTU, c.Host.MTU) + linkHeader + status.MaxTrailer }

// ready waits until the kernel sends through both ports, which for one that was
// up before it was opened takes a moment.
func (p *ports) ready() error { return errors.Join(p.wireWatch.Ready(), p.hostWatch.Ready()) }

// watch opens a view of an interface, which later needs no entering of its
// namespace.
func watch(i configs.Interface) (w *netns.Watch, err error) {
	err = in(i.Netns, func() error {
		w, err = netns.NewWatch(i.Name)
		return err
	})
	return w, err
}

func (p *ports) close() error {
	for _, w := range []*netns.Watch{p.wireWatch, p.hostWatch} {
		if w != nil {
			w.Close()
		}
	}
	return errors.Join(p.host.Close(), p.wire.Close())
}
