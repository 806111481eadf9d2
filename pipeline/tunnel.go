package pipeline

import (
	"tapsec/sa"
	"tapsec/status"
	"tapsec/wire"
)

// tunnelPortion checks the frame's tunnel portion, or what may be one, and looks for a
// transport portion in what it opened. Nothing inside a failed tunnel is looked at.
func (p *Pipeline) tunnelPortion() {
	po := p.forTunnel()
	if po == nil || !p.check(po) || po.kind != status.TunnelPortion {
		return
	}
	if reason := p.inside(); reason != 0 {
		p.trailer.Reason = reason
	}
}

// forTunnel is the portion that this stage checks, nil if none.
func (p *Pipeline) forTunnel() *portion {
	if p.outer.wanted() && p.outer.kind != status.TransportPortion {
		return &p.outer
	}
	return nil
}

// inside parses what the tunnel carried. A reason says why the frame ends here although
// the tunnel is good.
func (p *Pipeline) inside() status.Reason {
	version := uint8(0)
	switch p.outer.next {
	case wire.ProtoIPv4:
		version = 4
	case wire.ProtoIPv6:
		version = 6
	case wire.ProtoNoNext:
		return status.Dummy
	default:
		return status.InnerNotIP
	}
	if p.inner.packet.ParseIP(p.frame, p.outer.payload, p.outer.payload+p.outer.length, version) != nil {
		p.inner.packet = wire.Packet{}
		return status.InnerNotIP
	}
	p.find(&p.inner)
	if p.inner.n > 0 && p.inner.skip == 0 {
		p.inner.skip = p.uncombined()
	}
	if p.inner.wanted() {
		return 0
	}
	if p.inner.kind == status.TunnelPortion {
		p.leave(&p.inner)
	}
	return p.innerReason()
}

// uncombined says why a portion that would be checked if it stood alone is left to the
// transport inside a tunnel; 0 if it is not left.
func (p *Pipeline) uncombined() status.Reason {
	has := p.sad.profile.Has
	switch {
	case p.inner.kind == status.TunnelPortion:
		return status.InnerTunnelSA
	case p.inner.encap && p.outer.encap:
		return status.EncapTwice
	case !has(sa.TransportTunnelCombined),
		p.outer.encap && !has(sa.TransportOverUDPTunnel),
		p.inner.encap && !has(sa.UDPTransportOverTunnel):
		return status.NoCombined
	}
	return 0
}

// innerReason is the frame's reason if nothing inside the tunnel is checked: the tunnel's
// own verdict if there is no IPsec in it.
func (p *Pipeline) innerReason() status.Reason {
	switch p.inner.skip {
	case status.NoIPsec, status.IKE, status.KeepAlive, status.UDPTooShort:
		if p.inner.packet.Short {
			return status.InnerLength
		}
		return status.Verified
	}
	return p.inner.skip
}
