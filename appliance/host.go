package appliance

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"time"

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
	log      *slog.Logger
	software *pipeline.Software
	consumer *transport.Consumer
	sender   *outbound.Sender
	mirror   *tap.Device // nil without on_failure: mirror
	local    []netip.Addr
	options  outbound.Config // what is not the configuration's

	reassembler reassembler // in front of sender
}

// newHost makes the host behind the ports of a, which gets the ICMP errors of the
// outbound side on its stack.
func newHost(a *Appliance) (h *host, err error) {
	o, c := &a.options, a.config
	h = &host{log: a.log, software: pipeline.NewSoftware(), reassembler: reassembler{fragments: fragment.New(fragment.Limits{})}}
	h.options = outbound.Config{Use: o.Use, First: o.First, MTU: c.Wire.MTU, Reply: a.ports.host.Inject}
	if h.mirror, err = openMirror(c.OnFailure.Mirror); err != nil {
		return nil, err
	}
	tc := transport.Config{Fallback: h.software, Audit: h.audit}
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
	return h, nil
}

// adopt makes SAs, policy and addresses of a configuration those in force. What
// is unchanged keeps its window, lifetime and sequence number. On an error
// nothing has changed.
func (h *host) adopt(c *configs.Config) error {
	return h.take(c, localAddresses(c))
}

func (h *host) take(c *configs.Config, local []netip.Addr) error {
	inbound, out := c.Sides(local)
	want := h.options
	want.Policy, want.Local = c.Policy, local
	for _, bundle := range out {
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
	h.reassembler.idle.Store(len(out) == 0)
	if err := h.software.Replace(inbound); err != nil {
		return err
	}
	h.local = local
	return h.consumer.Replace(inbound, c.Policy, local, time.Now().UnixNano())
}

// tick is called each second, beside the frames.
func (h *host) tick(now time.Time, c *configs.Config) {
	h.consumer.Tick(now.UnixNano())
	h.follow(c)
}

// follow adopts the addresses that the stack's interface has now, where the
// configuration names none.
func (h *host) follow(c *configs.Config) {
	now := localAddresses(c)
	if slices.Equal(now, h.local) {
		return
	}
	if err := h.take(c, now); err != nil {
		h.log.Error("the stack's new addresses are not taken over", "err", err)
		return
	}
	h.log.Info("local addresses", "are", now)
}

// localAddresses are those that the configuration names, or else those of the
// stack's interface.
func localAddresses(c *configs.Config) []netip.Addr {
	if len(c.Local) > 0 {
		return c.Local
	}
	var local []netip.Addr
	// An interface that cannot be read has no addresses; that it is gone others
	// will find out.
	_ = in(c.Host.Netns, func() error {
		ifi, err := net.InterfaceByName(c.Host.Name)
		if err != nil {
			return err
		}
		addrs, err := ifi.Addrs()
		for _, a := range addrs {
			if n, ok := a.(*net.IPNet); ok {
				ip, _ := netip.AddrFromSlice(n.IP)
				local = append(local, ip.Unmap())
			}
		}
		return err
	})
	return local
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
	if h.mirror == nil {
		return nil
	}
	return h.mirror.Close()
}

// audit is a line of the log.
func (h *host) audit(e transport.Event) {
	level := slog.LevelWarn
	if e.Reason == transport.Resynchronised {
		level = slog.LevelInfo
	}
	attributes := []any{"reason", e.Reason.String(), "time", e.Time.UTC().Format(time.RFC3339Nano)}
	add := func(there bool, key string, value any) {
		if there {
			attributes = append(attributes, key, value)
		}
	}
	add(e.SA != "", "sa", e.SA)
	add(e.Protocol != 0, "protocol", e.Protocol.String())
	add(e.SPI != 0, "spi", sa.SPI(e.SPI).String())
	add(e.Number != 0, "seq", e.Number)
	add(e.Src.IsValid(), "src", e.Src)
	add(e.Dst.IsValid(), "dst", e.Dst)
	add(e.FlowID != 0, "flow", e.FlowID)
	add(e.Check != 0, "check", e.Check.String())
	add(e.Suppressed > 0, "suppressed", e.Suppressed)
	h.log.Log(context.Background(), level, e.Reason.Error(), attributes...)
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
