package pipeline

import (
	"encoding/binary"
	"slices"
	"unsafe"

	"tapsec/esp"
	"tapsec/sa"
	"tapsec/status"
)

// burst is frames that go through the stages together: each through one stage, before the
// first goes through the next, so that ciphers can take many packets at a time.
type burst struct {
	works    [esp.Burst]work
	n, next  int      // works in use, and the one that is annotated next
	expected [][]byte // frames that come after them
}

// Expect tells which frames Check or Process get next, in this order. Nothing that they find
// depends on it: it lets them go through the stages in bursts, where the build's ciphers
// gain by that (esp.Burst) and an SA has such a cipher.
func (p *Pipeline) Expect(frames [][]byte) {
	if esp.Burst > 1 && p.sad.together.Load() {
		p.n, p.next, p.expected = 0, 0, frames
	}
}

// inBurst makes frame the one in work, and reports whether it has come as far as annotate
// in a burst. Another frame than expected panics.
func (p *Pipeline) inBurst(frame []byte) bool {
	switch {
	case p.next < p.n:
	case len(p.expected) == 0:
		p.work = &p.works[0]
		return false
	default:
		p.take()
	}
	p.work = &p.works[p.next]
	p.next++
	if unsafe.SliceData(p.frame) != unsafe.SliceData(frame) {
		panic("pipeline: another frame than was expected")
	}
	return true
}

// take leads the next frames expected through the stages, all but annotate.
func (p *Pipeline) take() {
	p.n, p.next = 0, 0
	for p.n < min(len(p.expected), len(p.works)) {
		p.work = &p.works[p.n]
		if p.parse(p.expected[p.n]); p.n > 0 && p.alone() {
			break
		}
		p.n++
	}
	p.expected = p.expected[p.n:]
	p.stage((*Pipeline).forTunnel, (*Pipeline).tunnelPortion)
	p.stage((*Pipeline).forTransport, (*Pipeline).transportPortion)
}

// alone reports whether the frame in work begins a burst, because it may depend on a mark that
// rises in another stage of the frames in front. The mark of a tunnel's SA rises in the stage of
// tunnels, others in that of transport portions, and so in the order of the frames; but an SA of
// mode auto, and the AH in front of a tunnel's ESP, stand in either. What is left alone has its
// number before all stages.
func (p *Pipeline) alone() bool {
	po := &p.outer
	numbered := func(h header) bool { return h.sa.ESN }
	return (!po.wanted() || po.n > 1 || po.kind == status.NoPortion) && slices.ContainsFunc(po.headers[:po.n], numbered)
}

// stage leads a burst through one stage, after the ciphers have seen the portions that it checks.
func (p *Pipeline) stage(portionOf func(*Pipeline) *portion, check func(*Pipeline)) {
	for i := range p.n {
		p.work = &p.works[i]
		if po := portionOf(p); po != nil {
			p.enter(po)
		}
	}
	p.esp.Together()
	for i := range p.n {
		p.work = &p.works[i]
		check(p)
	}
	p.esp.Apart()
}

// enter gives the ESP packet of a portion to the cipher. A number that the SA's mark gives
// otherwise once the frames in front are checked makes Open begin again.
func (p *Pipeline) enter(po *portion) {
	h := &po.headers[0]
	if po.n > 1 || h.protocol != sa.ESP || po.fault != 0 || lengths(po) != status.Verified || po.end-h.at < esp.HeaderLen {
		return
	}
	packet := p.frame[h.at:po.end]
	number := h.sa.Mark.Number(binary.BigEndian.Uint32(packet[4:]))
	h.sa.Value.esp.Enter(p.opt.Worker, packet, number, &p.esp)
}
