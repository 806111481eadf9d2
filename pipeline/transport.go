package pipeline

import "tapsec/status"

// transportPortion checks the transport portion, the frame's own or the one inside a
// verified tunnel. What it protects is not the NIC's business.
func (p *Pipeline) transportPortion() {
	switch {
	case p.inner.wanted() && p.inner.kind == status.NoPortion:
		p.checkUndecided(&p.inner)
	case p.inner.wanted():
		p.check(&p.inner)
		p.trailer.Word |= status.NextCryptoDone
	case p.outer.wanted() && !p.trailer.Word.Done():
		p.check(&p.outer)
	}
}

// checkUndecided checks a portion inside the tunnel whose SA has mode auto. If it proves to
// be a second tunnel, it is left alone like any other (contract row 29), with its bytes as
// they came.
func (p *Pipeline) checkUndecided(po *portion) {
	bytes := p.frame[po.packet.Header:po.packet.Reach]
	p.undo = append(p.undo[:0], bytes...)
	if p.check(po); po.kind != status.TunnelPortion {
		p.trailer.Word |= status.NextCryptoDone
		return
	}
	copy(bytes, p.undo)
	po.verified, po.skip = false, status.InnerTunnelSA
	p.trailer.N -= uint8(po.n)
	p.leave(po)
	p.trailer.Reason = po.skip
}
