package pipeline

import "tapsec/status"

// transportPortion checks the transport portion, be it the frame's own or the one
// inside a verified tunnel; in the latter case both portions are then checked.
// What lies beneath it is not the NIC's business any more.
func (p *Pipeline) transportPortion() {
	switch {
	case p.outer.wanted() && p.outer.kind == status.TransportPortion:
		p.check(&p.outer)
	case p.inner.wanted():
		p.check(&p.inner)
		p.trailer.Word |= status.NextCryptoDone
	}
}
