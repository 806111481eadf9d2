//go:build linux

package appliance

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"slices"

	"tapsec/configs"
	"tapsec/control"
	"tapsec/internal/audit"
	"tapsec/internal/fragment"
	"tapsec/internal/netns"
	"tapsec/internal/outbound"
	"tapsec/pipeline"
	"tapsec/sa"
	"tapsec/tap"
	"tapsec/transport"
)

// host is the computer behind the NIC: the transport, the software that does what the
// NIC has left, and the outbound side. The stack is the kernel's, on a TAP of its own.
type host struct {
	log       *slog.Logger
	software  *pipeline.Software
	consumer  *transport.Receiver
	sender    *outbound.Sender
	remembers bool            // used numbers outlive the process, or the log has warned that they do not
	mtu       int             // of the wire, when it was last looked at
	mirror    *tap.Device     // nil without on_failure: mirror
	options   outbound.Config // the part that does not come from the configuration

	addresses *netns.Addresses // of the stack's interface
	local     []netip.Addr     // ours
	refused   string           // why other ones are not taken over
	moves     audit.Changes[[]netip.Addr]
	resizes   audit.Changes[int] // of the wire's MTU
	sides     sides
	division  division // the one in force, less what transport and sender have
	inbound   int      // bundles, as of the latest reload
	outbound  int      // bundles

	reassembler reassembler // before sender
}

// newHost makes the host behind a's ports. Its stack gets the ICMP errors of the outbound
// side.
func newHost(a *Appliance) (h *host, err error) {
	o, c := &a.options, a.config
	h = &host{log: a.log, software: pipeline.NewSoftware(), reassembler: reassembler{fragments: fragment.New(fragment.Limits{})}}
	if h.mtu, err = a.ports.mtu(c); err != nil {
		return nil, err
	}
	h.options = outbound.Config{Joined: true, Use: o.Use, First: o.First, Socket: c.Wire.Attach,
		Reply: a.ports.host.Inject, Ledger: a.ledger, Audit: a.logSent}
	h.remembers = o.State != ""
	h.moves.Report, h.resizes.Report = h.movesTo(c), h.sealsFor
	h.warnOfMTU()
	h.sides = newSides()
	if err := netns.In(c.Host.Netns, func() (err error) {
		h.addresses, err = netns.Follow(c.Host.Name)
		return err
	}); err != nil {
		return nil, err
	}
	if h.mirror, err = openMirror(c.OnFailure.Mirror); err != nil {
		return nil, errors.Join(err, h.close())
	}
	h.software.Remember(a.ledger.Marks())
	tc := transport.Config{Fallback: h.software, Audit: a.logReceived, Ledger: a.ledger,
		ICMP: func(frame []byte) { h.sender.Heed(frame) }}
	switch {
	case a.adapter != nil:
		tc.NIC = direct{a.adapter.sad, a.takeBack}
	case o.NIC != "":
		client, err := control.Dial(o.NIC)
		if err != nil {
			return nil, errors.Join(err, h.close())
		}
		tc.NIC = newRemote(client, a)
	}
	if h.mirror != nil {
		tc.Mirror = func(frame []byte) { h.mirror.Inject(frame) } // best effort: an absent monitor loses frames
	}
	if h.consumer, err = transport.New(tc); err != nil {
		return nil, errors.Join(err, h.close())
	}
	if err := h.adopt(c); err != nil {
		return nil, errors.Join(inputError(err), h.close())
	}
	h.undecided(h.division, c)
	h.forgets()
	return h, nil
}

// adopt puts a configuration's SAs, policy and addresses in force. Unchanged SAs keep
// window, lifetime and sequence number. On an error nothing has changed.
func (h *host) adopt(c *configs.Config) error { return h.put(c, h.ours(c), h.mtu) }

// put is adopt with addresses that are ours, and an MTU of the wire.
func (h *host) put(c *configs.Config, local []netip.Addr, mtu int) error {
	d := h.sides.divide(c.AllBundles(), local, len(c.Local) > 0)
	held := h.sides.protects(c.Policy, &d, h.options.Use)
	want := h.options
	want.Local, want.MTU = local, max(mtu, leastMTU)
	if err := h.seal(want, c.Policy, &d, held); err != nil {
		return err
	}
	h.local, h.mtu = local, mtu
	h.sides.keep(&d, held)
	inbound := slices.Concat(d.inbound, d.undecided)
	if err := h.software.Replace(inbound); err != nil {
		return err
	}
	h.division, h.inbound = d, len(d.inbound)
	h.division.inbound = nil // the transport's own
	return h.consumer.Replace(inbound, c.Policy, h.mine())
}

// seal puts a division's outbound SAs in force.
func (h *host) seal(want outbound.Config, policy []sa.Policy, d *division, held []outbound.Held) error {
	want.Policy, want.Held = policy, slices.AppendSeq(slices.Clone(held), maps.Keys(h.sides.held))
	want.SAs = slices.Concat(d.outbound...)
	if h.sender == nil {
		sender, err := outbound.New(want)
		if err != nil {
			return err
		}
		h.sender = sender
	} else if err := h.sender.Replace(want); err != nil {
		return err
	}
	h.sealing(len(d.outbound))
	return nil
}

// sealing notes how many bundles seal.
func (h *host) sealing(bundles int) {
	h.outbound = bundles
	h.reassembler.idle.Store(bundles == 0)
}

// add takes further SAs, all or none.
func (h *host) add(c *configs.Config, bundles [][]*sa.SA) error {
	more := h.sides.divide(bundles, h.local, len(c.Local) > 0)
	inbound := slices.Concat(more.inbound, more.undecided)
	if err := h.software.AddAll(inbound); err != nil {
		return err
	}
	var held []outbound.Held
	err := h.consumer.Add(inbound)
	if err == nil && len(more.outbound)+len(more.undecided) > 0 {
		held = h.sides.protects(nil, &more, h.options.Use)
		if err = h.sender.Add(slices.Concat(more.outbound...), held); err == nil {
			h.division.outbound = more.outbound
			h.division.undecided = append(h.division.undecided, more.undecided...)
			h.sealing(h.outbound + len(more.outbound))
			h.consumer.SetLocal(h.mine())
		}
	}
	if err != nil {
		h.stopOpening(inbound)
		return err
	}
	h.sides.keep(&more, held)
	h.undecided(more, c)
	h.forgets()
	return nil
}

// stopSealing takes bundles from the outbound side. What they protected is held back from
// now on.
func (h *host) stopSealing(bundles [][]*sa.SA) error {
	gone, err := h.sender.Delete(slices.Concat(bundles...))
	if err != nil {
		return err
	}
	h.sealing(h.outbound - gone)
	h.division.undecided = slices.DeleteFunc(h.division.undecided, func(b []*sa.SA) bool {
		return slices.ContainsFunc(bundles, func(o []*sa.SA) bool { return o[0] == b[0] })
	})
	h.consumer.SetLocal(h.mine())
	return nil
}

// stopOpening takes bundles from the inbound side.
func (h *host) stopOpening(bundles [][]*sa.SA) {
	for _, bundle := range bundles {
		_ = h.consumer.Delete(bundle[0].ID()) // unknown if it is outbound
		_ = h.software.Delete(bundle[0].ID())
	}
}

// numbers sets the sequence numbers of an SA to those it has reached.
func (h *host) numbers(c *configs.Config, s *sa.SA) {
	switch one, known := h.sides.decide(s, h.local, len(c.Local) > 0); {
	case known && one.outbound:
		s.OSeq = max(s.OSeq, h.options.Ledger.Counter(s).Peek()-1)
	default:
		if top := h.options.Ledger.Inbound(s).Window().Top; top > s.Seq {
			s.Seq, s.Bitmap = top, nil
		}
	}
}

// forgets warns, once, that a key used by an earlier run would go unnoticed.
func (h *host) forgets() {
	bundles := h.division.outbound
	h.division.outbound = nil // the sender's own
	if h.remembers {
		return
	}
	var names []string
	for _, bundle := range bundles {
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

// mine are the addresses whose packets are for this host. A host that seals nothing only
// receives, and takes every packet until it has an address.
func (h *host) mine() []netip.Addr {
	if len(h.local) == 0 && h.outbound == 0 {
		return nil
	}
	return slices.Concat([]netip.Addr{}, h.local)
}

// ours are the addresses that the configuration names, or else those of the stack's
// interface. While that has none, its last ones stay ours.
func (h *host) ours(c *configs.Config) []netip.Addr {
	if len(c.Local) > 0 {
		return c.Local
	}
	now, err := h.addresses.List()
	if err != nil && !errors.Is(err, netns.ErrInterrupted) {
		h.log.Warn("the stack's addresses cannot be read; those known stay", "err", err)
	}
	if err != nil || len(now) == 0 {
		return h.local
	}
	return now
}

// moved reports whether our addresses have changed.
func (h *host) moved(c *configs.Config) bool { return !slices.Equal(h.ours(c), h.local) }

// follow adopts the addresses that are ours now.
func (h *host) follow(c *configs.Config) {
	if err := h.adopt(c); err != nil {
		if h.refused != err.Error() { // the next second tries again
			h.log.Error("the stack's new addresses are not taken over", "err", err)
		}
		h.refused = err.Error()
		return
	}
	h.refused = ""
	h.forgets()
	h.moves.Changed(h.local)
}

// movesTo logs our addresses, and which SAs wait for one.
func (h *host) movesTo(c *configs.Config) func([]netip.Addr, uint64) {
	return func(are []netip.Addr, suppressed uint64) {
		l := line{level: slog.LevelInfo}
		l.add(true, "are", are[:min(len(are), mostSaid)])
		l.add(len(are) > mostSaid, "more", len(are)-mostSaid)
		l.add(suppressed > 0, "suppressed", suppressed)
		l.log(h.log, "local addresses")
		h.undecided(h.division, c)
	}
}

// resize makes the outbound side seal for another MTU of the wire.
func (h *host) resize(c *configs.Config, mtu int) {
	if err := h.put(c, h.local, mtu); err != nil {
		h.log.Error("the wire's new MTU is not taken over", "mtu", mtu, "err", err)
		return
	}
	h.resizes.Changed(mtu)
}

// sealsFor logs the wire's MTU.
func (h *host) sealsFor(mtu int, suppressed uint64) {
	h.warnOfMTU()
	l := line{level: slog.LevelInfo}
	l.add(true, "is", mtu)
	l.add(suppressed > 0, "suppressed", suppressed)
	l.log(h.log, "the wire's MTU")
}

// leastMTU is what is sealed for at least: every host accepts an IPv4 packet of 576 bytes
// (RFC 791), so no smaller MTU is believed.
const leastMTU = 576

// warnOfMTU logs that what is sealed may be too long for the wire.
func (h *host) warnOfMTU() {
	if h.mtu < leastMTU {
		h.log.Warn("the wire's MTU is smaller than what packets are sealed for; those too long for it are lost", "mtu", h.mtu, "least", leastMTU)
	}
}

// undecided logs which SAs wait for an address.
func (h *host) undecided(d division, c *configs.Config) {
	var names []string
	for _, bundle := range d.undecided {
		names = append(names, bundle[0].Name)
	}
	if len(names) > 0 {
		h.log.Warn("these SAs have no direction until the stack has an address; what they may protect is held back. Or say direction, or local",
			"interface", c.Host.Name, "sas", list(names))
	}
}

// mostSaid is how many names, or addresses, a line of the log has.
const mostSaid = 20

// list is a few names, for the log.
func list(names []string) string { return sa.Few(names, mostSaid, " ") }

// openMirror opens the interface that failed frames go to, or makes a TAP of that name.
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

// direct is the control interface of a NIC in the same process. Whatever takes time is
// done in the background.
type direct struct {
	sad      *pipeline.SAD
	takeBack func(*sa.SA)
}

func (d direct) Update(s *sa.SA, high uint32) {
	if handle := d.sad.Handle(s.ID()); handle != 0 {
		_ = d.sad.Update(handle, high) // deleted meanwhile: nothing to update
	}
}

func (d direct) Delete(s *sa.SA) { go d.takeBack(s) }
