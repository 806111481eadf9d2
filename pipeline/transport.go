package pipeline

import "tapsec/status"

// transportPortion checks the transport portion, the frame's own or the one inside a
// verified tunnel. What it protects is not the NIC's business.
func (p *Pipeline) transportPortion() {
	switch po := p.forTransport(); {
	case po == nil && p.inner.kind == status.TunnelPortion: // the stage before has left it
		if last := int(p.trailer.N) - 1; p.inner.n > 1 { // the AH's mark rises in this stage
			p.trailer.Records[last-1].Number = p.record(&p.inner, &p.inner.headers[0]).Number
		}
	case po == nil:
		p.leave(&p.inner)
	case po == &p.outer:
		p.check(po)
	case po.kind == status.NoPortion:
		p.checkUndecided(po)
	default:
		p.check(po)
		p.trailer.Word |= status.NextCryptoDone
	}
}

// forTransport is the portion that this stage checks, nil if none.
func (p *Pipeline) forTransport() *portion {
	switch {
	case p.inner.wanted():
		return &p.inner
	case p.outer.wanted() && !p.trailer.Word.Done():
		return &p.outer
	}
	return nil
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
