package appliance

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strings"

	"tapsec/configs"
	"tapsec/internal/control"
	"tapsec/internal/fragment"
	"tapsec/internal/netns"
	"tapsec/internal/outbound"
	"tapsec/pipeline"
	"tapsec/sa"
	"tapsec/tap"
	"tapsec/transport"
)

// host is the computer behind a NIC but for the NIC itself: the transport, the
// software that does what the NIC has left, and the outbound side. The stack is
// the kernel's, on a TAP of its own.
type host struct {
	log       *slog.Logger
	software  *pipeline.Software
	consumer  *transport.Receiver
	sender    *outbound.Sender
	remembers bool            // beyond this process which numbers were sent, or it was said that nothing does
	mtu       int             // of the wire, when it was last looked at
	mirror    *tap.Device     // nil without on_failure: mirror
	options   outbound.Config // what is not the configuration's

	addresses *netns.Addresses // of the stack's interface
	local     []netip.Addr     // ours
	sides     sides
	division  division // in force

	reassembler reassembler // in front of sender
}

// newHost makes the host behind the ports of a, which gets the ICMP errors of the
// outbound side on its stack.
func newHost(a *Appliance) (h *host, err error) {
	o, c := &a.options, a.config
	h = &host{log: a.log, software: pipeline.NewSoftware(), reassembler: reassembler{fragments: fragment.New(fragment.Limits{})}}
	if h.mtu, err = a.ports.mtu(c); err != nil {
		return nil, err
	}
	h.options = outbound.Config{Joined: true, Use: o.Use, First: o.First, MTU: h.mtu, Socket: c.Wire.Attach,
		Reply: a.ports.host.Inject, Ledger: a.ledger, Audit: logSent(a.log)}
	h.remembers = o.State != ""
	h.sides = newSides()
	if err := in(c.Host.Netns, func() (err error) {
		h.addresses, err = netns.Follow(c.Host.Name)
		return err
	}); err != nil {
		return nil, err
	}
	if h.mirror, err = openMirror(c.OnFailure.Mirror); err != nil {
		return nil, errors.Join(err, h.close())
	}
	h.software.Remember(a.ledger.Marks())
	tc := transport.Config{Fallback: h.software, Audit: logReceived(a.log), Ledger: a.ledger}
	switch {
	case a.adapter != nil:
		tc.NIC = direct{a.adapter.sad}
	case o.NIC != "":
		client, err := control.Dial(o.NIC)
		if err != nil {
			return nil, errors.Join(err, h.close())
		}
		tc.NIC = remote{client, func(err error) { h.log.Warn("the NIC was not told", "err", err) }}
	}
	if h.mirror != nil {
		tc.Mirror = func(frame []byte) { h.mirror.Inject(frame) } // best effort: a monitor that is not there loses frames
	}
	if h.consumer, err = transport.New(tc); err != nil {
		return nil, errors.Join(err, h.close())
	}
	if err := h.adopt(c); err != nil {
		return nil, errors.Join(inputError(err), h.close())
	}
	h.undecided(c)
	h.forgets()
	return h, nil
}

// adopt makes SAs, policy and addresses of a configuration those in force. What
// is unchanged keeps its window, lifetime and sequence number. On an error
// nothing has changed.
func (h *host) adopt(c *configs.Config) error {
	h.local = h.ours(c)
	d := h.sides.divide(c, h.local)
	held := h.sides.protects(c, &d, h.options.Use)
	want := h.options
	want.Policy, want.Local, want.Held = c.Policy, h.local, slices.Collect(maps.Keys(held))
	for _, bundle := range d.outbound {
		want.SAs = append(want.SAs, bundle...)
	}
	if h.sender == nil {
		sender, err := outbound.New(want)
		if err != nil {
			return err
		}
		h.sender = sender
	} else if err := h.sender.Replace(want); err != nil {
		return err
	}
	h.reassembler.idle.Store(len(d.outbound) == 0)
	inbound := slices.Concat(d.inbound, d.undecided)
	if err := h.software.Replace(inbound); err != nil {
		return err
	}
	h.sides.held, h.division = held, d
	return h.consumer.Replace(inbound, c.Policy, h.mine())
}

// forgets says once that sealing with a key for the second time cannot be noticed.
func (h *host) forgets() {
	if h.remembers {
		return
	}
	var names []string
	for _, bundle := range h.division.outbound {
		for _, s := range bundle {
			if s.Suite.CounterMode() {
				names = append(names, s.Name)
			}
		}
	}
	if len(names) > 0 {
		h.remembers = true
		h.log.Warn("a key that has sealed before must never seal from the same number again; only a state file (--state) remembers that",
			"sas", list(names))
	}
}

// mine are the addresses whose packets are for this host. Where nothing is sealed
// it is a plain receiver, and takes all until it has an address.
func (h *host) mine() []netip.Addr {
	if len(h.local) == 0 && len(h.division.outbound) == 0 {
		return nil
	}
	return slices.Concat([]netip.Addr{}, h.local)
}

// ours are the addresses that the configuration names, or else those of the
// stack's interface. That it has none for the moment is no news.
func (h *host) ours(c *configs.Config) []netip.Addr {
	if len(c.Local) > 0 {
		return c.Local
	}
	now, err := h.addresses.List()
	if err != nil {
		h.log.Warn("the stack's addresses cannot be read, those known stay", "err", err)
	}
	if err != nil || len(now) == 0 {
		return h.local
	}
	return now
}

// follow adopts the addresses that are ours now.
func (h *host) follow(c *configs.Config) {
	now := h.ours(c)
	if slices.Equal(now, h.local) {
		return
	}
	if err := h.adopt(c); err != nil {
		h.log.Error("the stack's new addresses are not taken over", "err", err)
		return
	}
	h.log.Info("local addresses", "are", now)
	h.undecided(c)
	h.forgets()
}

// resize seals for another MTU of the wire. One that nothing can be sealed for is
// told of once, and that before stays.
func (h *host) resize(c *configs.Config, mtu int) {
	if mtu == h.mtu {
		return
	}
	before := h.options.MTU
	h.mtu, h.options.MTU = mtu, mtu
	if err := h.adopt(c); err != nil {
		h.options.MTU = before
		h.log.Error("the wire's new MTU is not taken over", "mtu", mtu, "err", err)
		return
	}
	h.log.Info("the wire's MTU", "is", mtu)
}

// undecided says which SAs wait for an address.
func (h *host) undecided(c *configs.Config) {
	var names []string
	for _, bundle := range h.division.undecided {
		names = append(names, bundle[0].Name)
	}
	if len(names) > 0 {
		h.log.Warn("these SAs have no direction until the stack has an address; what they may protect is held back. Or say direction, or local",
			"interface", c.Host.Name, "sas", list(names))
	}
}

// list is a few names, for the log.
func list(names []string) string {
	const few = 20
	if more := len(names) - few; more > 0 {
		return fmt.Sprintf("%s and %d more", strings.Join(names[:few], " "), more)
	}
	return strings.Join(names, " ")
}

// in runs f in a named network namespace, or here.
func in(name string, f func() error) error {
	if name == "" {
		return f()
	}
	ns, err := netns.Open(name)
	if err != nil {
		return err
	}
	defer ns.Close()
	return ns.Do(f)
}

// openMirror opens the interface that sees failed frames, and makes a TAP where
// there is none of that name.
func openMirror(name string) (*tap.Device, error) {
	if name == "" {
		return nil, nil
	}
	if _, err := net.InterfaceByName(name); err == nil {
		return tap.Attach(name)
	}
	d, err := tap.Open(tap.Config{Name: name})
	if err != nil {
		return nil, fmt.Errorf("mirror: %w", err)
	}
	return d, d.Up()
}

func (h *host) close() error {
	err := h.addresses.Close()
	if h.mirror != nil {
		err = errors.Join(err, h.mirror.Close())
	}
	return err
}

// direct is the control interface of a NIC in the same process.
type direct struct{ sad *pipeline.SAD }

func (d direct) Update(s *sa.SA, high uint32) {
	if handle := d.sad.Handle(s.ID()); handle != 0 {
		_ = d.sad.Update(handle, high) // deleted meanwhile: nothing to update
	}
}

func (d direct) Delete(s *sa.SA) {
	if handle := d.sad.Handle(s.ID()); handle != 0 {
		_ = d.sad.Delete(handle)
	}
}
