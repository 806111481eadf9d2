package pipeline

import (
	"tapsec/ah"
	"tapsec/esp"
	"tapsec/sa"
	"tapsec/status"
	"tapsec/wire"
)

// Step is how one stage left a frame, as Tell shows it.
type Step struct {
	Stage        string // parse, tunnel or transport
	Outer, Inner View   // the portion that begins in the frame itself, and the one inside its tunnel
}

// View is one portion. The zero View is of a packet that was not parsed.
type View struct {
	Portion status.Portion
	Packet  wire.Packet // the packet that carries it
	Encap   bool        // ESP in UDP
	End     int         // offset of the end of the IPsec packet, by IP or UDP length

	Headers []Header      // those for which an SA matched, AH before ESP
	Skip    status.Reason // why it is left alone; 0 if it is checked
	Checked bool          // a stage has checked it, with whatever result

	// What a verified portion protected.
	Verified        bool
	Payload, Length int // offset and length in bytes
	Next            uint8
}

// Header is one AH or ESP header and how its ICV compared.
type Header struct {
	SA       *sa.SA
	Protocol sa.Protocol
	At       int    // offset of the header
	ICV      int    // offset of the ICV, 0 if the packet has no room for it
	Computed []byte // the ICV that the packet should have had; nil if its ICV is right, or none was compared
}

// Tell is Process with a report after each stage, in place whatever the form, since that is
// where the offsets of Steps lead. It is for single frames that somebody asks about: it
// allocates, and computes each wrong ICV a second time.
func (p *Pipeline) Tell(frame []byte, tell func(Step)) []byte {
	p.parse(frame)
	tell(p.step("parse"))
	p.tunnelPortion()
	tell(p.step("tunnel"))
	p.transportPortion()
	tell(p.step("transport"))
	t := p.complete()
	return p.Deliver(p.frame, t)
}

func (p *Pipeline) step(stage string) Step {
	outer := p.view(&p.outer, 0)
	return Step{stage, outer, p.view(&p.inner, len(outer.Headers))}
}

// view shows a portion, given the index of its first record.
func (p *Pipeline) view(po *portion, first int) View {
	v := View{Portion: po.kind, Packet: po.packet, Encap: po.encap, End: po.end, Skip: po.skip,
		Verified: po.verified, Payload: po.payload, Length: po.length, Next: po.next}
	for i := range po.headers[:po.n] {
		h := Header{SA: po.headers[i].sa.SA, Protocol: po.headers[i].protocol, At: po.headers[i].at}
		if first+i < int(p.trailer.N) && po.skip == 0 {
			v.Checked = true
			p.compare(po, &po.headers[i], &p.trailer.Records[first+i], &h)
		}
		v.Headers = append(v.Headers, h)
	}
	return v
}

// compare says where a header's ICV lies and, if it is wrong, what it should have been.
func (p *Pipeline) compare(po *portion, h *header, r *status.Record, to *Header) {
	su := &h.sa.Suite
	at := po.end - su.ICVLen
	if h.protocol == sa.AH {
		at = h.at + ah.FixedLen + su.IVLen
	}
	if su.ICVLen == 0 || at < h.at+esp.HeaderLen || at+su.ICVLen > po.packet.Reach {
		return
	}
	to.ICV = at
	switch r.Reason {
	case status.ESPICV:
		to.Computed = h.sa.Value.esp.ICV(p.opt.Worker, p.frame[h.at:po.end], r.Number, &p.esp)
	case status.AHICV:
		to.Computed = h.sa.Value.ah.ICV(p.opt.Worker, p.frame, &po.packet, r.Number, &p.ah)
	}
}
