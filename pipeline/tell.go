package pipeline

import (
	"tapsec/ah"
	"tapsec/esp"
	"tapsec/sa"
	"tapsec/status"
	"tapsec/wire"
)

// Step is what one stage has left of a frame, as Tell shows it.
type Step struct {
	Stage        string // parse, tunnel or transport
	Outer, Inner View   // the portion that begins in the frame itself, and the one inside its tunnel
}

// View is one portion. The zero View is that of a packet that nobody has parsed.
type View struct {
	Portion status.Portion
	Packet  wire.Packet // that carries it
	Encap   bool        // ESP in UDP
	End     int         // offset after the IPsec packet, by IP or UDP length

	Headers []Header      // those for which an SA matched, AH before ESP
	Skip    status.Reason // why it is left alone; 0 if it is checked
	Checked bool          // a stage has checked it, with whatever result

	// Of a verified one: what it protected.
	Verified        bool
	Payload, Length int // offset and length in bytes
	Next            uint8
}

// Header is one AH or ESP header and how its ICV compared.
type Header struct {
	SA       *sa.SA
	Protocol sa.Protocol
	At       int    // offset of the header
	ICV      int    // offset of the ICV, 0 where the packet has no room for it
	Computed []byte // the ICV that the packet should have had; nil where it has the right one, or none was compared
}

// Tell is Process that tells after each stage what it has found. It is for a frame that
// somebody asks about: it allocates, and computes each wrong ICV a second time.
func (p *Pipeline) Tell(frame []byte, tell func(Step)) []byte {
	p.parse(frame)
	tell(p.step("parse"))
	p.tunnelPortion()
	tell(p.step("tunnel"))
	p.transportPortion()
	tell(p.step("transport"))
	return p.annotate()
}

func (p *Pipeline) step(stage string) Step {
	outer := p.view(&p.outer, 0)
	return Step{stage, outer, p.view(&p.inner, len(outer.Headers))}
}

// view shows a portion whose first record is the one given.
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

// compare says where a header's ICV lies, and what it should have been where it is wrong.
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
