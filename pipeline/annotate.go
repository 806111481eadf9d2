package pipeline

import (
	"tapsec/status"
	"tapsec/wire"
)

// annotate completes the annotation, and puts the frame into the form asked for.
func (p *Pipeline) annotate() ([]byte, *status.Trailer) {
	t := p.complete()
	if p.opt.Form == status.Decap {
		p.decap()
	}
	return p.frame, t
}

// complete completes the annotation.
func (p *Pipeline) complete() *status.Trailer {
	t := &p.trailer
	p.ordinal++
	t.Ordinal, t.Received = p.ordinal, p.now
	if t.N > 0 && !p.opt.Aside && p.sad.table.Asks(p.outer.headers[0].sa) {
		t.Word |= status.SADeleteReq
		t.Records[0].DeleteSA = true
	}
	p.counters.count(t)
	if p.opt.Failed != nil && t.Word.Code() != status.Success {
		p.opt.Failed(p.frame, t)
	}
	return t
}

// Deliver appends the trailer to a frame that was checked, unless there is to be none.
func (p *Pipeline) Deliver(frame []byte, t *status.Trailer) []byte {
	if p.opt.NoTrailer {
		return frame
	}
	return status.Annotate(frame, t)
}

// decap removes and counts the verified portions, the inner one first so that offsets
// stay valid. A tunnel that carries no whole IP packet stays.
func (p *Pipeline) decap() {
	tunnel := p.outer.verified && p.outer.kind == status.TunnelPortion
	last := &p.outer
	if tunnel {
		last = &p.inner
		if last.packet.Version == 0 || last.packet.Short {
			return
		}
	}
	packet := &last.packet
	if last.verified {
		p.frame = wire.StripTransport(p.frame, packet, last.payload, last.length, last.next)
		p.trailer.Removed++
	}
	if tunnel {
		p.frame = wire.StripTunnel(p.frame, p.l3, packet)
		p.trailer.Removed++
	}
	if p.trailer.Removed > 0 {
		p.trailer.Form = status.Decap
	}
}
