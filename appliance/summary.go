//go:build linux

package appliance

import (
	"time"

	"tapsec/tap"
	"tapsec/transport"
)

// Summary is what an Appliance has done so far: what it moved, how it judged the
// frames, and what the kernel dropped on either side.
type Summary struct {
	Ran        time.Duration
	Wire, Host string // the interfaces' names
	Moved      Moved
	Adapter    *Adapter            // counts frames by status and reason; nil without a NIC
	Transport  *transport.Summary  // nil without a transport
	SAs        []transport.SAState // the transport's; of more than a thousand those that had packets
	Untold     int                 // further ones
	Drops      []KernelDrops       // of the wire and of the host
}

// KernelDrops are an interface's drops since the Appliance opened it.
type KernelDrops struct {
	Interface string `json:"interface"`
	tap.Drops
	Err error `json:"-"` // why they cannot be read
}

// Summary sums up.
func (a *Appliance) Summary() Summary {
	s := a.brief()
	if a.host == nil {
		return s
	}
	n := a.host.consumer.Count()
	for state := range a.host.consumer.States() {
		idle := state.Tally.Packets+state.Window.Replays+state.Window.Late == 0
		if n <= maxSAs || !idle && len(s.SAs) < maxSAs {
			s.SAs = append(s.SAs, state)
		}
	}
	s.Untold = max(n-len(s.SAs), 0)
	return s
}

// Line is the Summary's line.
func (a *Appliance) Line() string {
	s := a.brief()
	return s.Line()
}

// brief is a Summary without SAs.
func (a *Appliance) brief() Summary {
	a.mu.Lock()
	defer a.mu.Unlock()
	s := Summary{Ran: time.Since(a.began), Wire: a.config.Wire.Name, Host: a.config.Host.Name, Moved: a.nic.Summary(), Adapter: a.adapter,
		Drops: a.ports.drops()}
	if a.host != nil {
		t := a.host.consumer.Summary()
		s.Transport = &t
	}
	return s
}

// drops are the drops of the wire and of the host.
func (p *ports) drops() []KernelDrops {
	return []KernelDrops{dropsSince(p.wire, p.wireBefore), dropsSince(p.host, p.hostBefore)}
}

func dropsSince(d *tap.Device, before tap.Drops) KernelDrops {
	now, err := d.Drops()
	if err != nil {
		return KernelDrops{Interface: d.Name(), Err: err}
	}
	return KernelDrops{d.Name(), tap.Drops{Tx: now.Tx - before.Tx, Rx: now.Rx - before.Rx}, nil}
}
