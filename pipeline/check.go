package pipeline

import (
	"encoding/binary"

	"tapsec/ah"
	"tapsec/esp"
	"tapsec/sa"
	"tapsec/status"
)

// check verifies a portion, AH before ESP, up to the first failure, and writes a record
// for each header. It reports whether all of it is good; bytes that failed are as they
// came in.
func (p *Pipeline) check(po *portion) bool {
	verdict := po.fault
	if verdict == 0 {
		verdict = lengths(po)
	}
	for i := range po.headers[:po.n] {
		h := &po.headers[i]
		r := p.record(po, h)
		if i == 0 || verdict == status.Verified {
			if verdict == status.Verified {
				verdict = p.open(po, h, &r)
			}
			settle(&r, verdict)
			if verdict != status.Verified && !p.opt.Aside {
				p.sad.table.Fail(h.sa, uint16(verdict))
			}
		}
		p.trailer.Add(r)
	}
	if po.verified = verdict == status.Verified; po.verified && po.kind == status.NoPortion {
		p.decide(po)
	}
	p.trailer.Reason = verdict
	p.trailer.Word = p.trailer.Word.WithCode(verdict.Code(po.kind)) | status.CryptoDone
	return po.verified
}

// decide sets the kind of a good portion by its authenticated next header, in its records
// too.
func (p *Pipeline) decide(po *portion) {
	po.kind = kindOf[sa.Auto.Of(po.next)]
	for i := range po.n {
		p.trailer.Records[int(p.trailer.N)-1-i].Portion = po.kind
	}
}

// leave writes the records of a portion that is left alone although an SA matched.
func (p *Pipeline) leave(po *portion) {
	for i := range po.headers[:po.n] {
		r := p.record(po, &po.headers[i])
		r.Reason = po.skip
		p.trailer.Add(r)
	}
}

// lengths compares the portion's IP and UDP lengths with what was received (contract row
// 23 a).
func lengths(po *portion) status.Reason {
	switch {
	case po.packet.Short:
		return status.IPLength
	case po.end > po.packet.End:
		return status.UDPLength
	}
	return status.Verified
}

// open verifies one header's ICV, decrypts what follows it, and raises the SA's mark to
// the authentic number.
func (p *Pipeline) open(po *portion, h *header, r *status.Record) status.Reason {
	var verdict status.Reason
	if h.protocol == sa.AH {
		verdict = p.openAH(po, h, r)
	} else {
		verdict = p.openESP(po, h, r)
	}
	if verdict.Authentic() && !p.opt.Aside {
		p.authenticated(h.sa.Mark, r.Number)
		p.sad.table.Use(h.sa)
	}
	return verdict
}

func (p *Pipeline) openAH(po *portion, h *header, r *status.Record) status.Reason {
	verdict := h.sa.Value.ah.Verify(p.opt.Worker, p.frame, &po.packet, r.Number, &p.ah)
	po.payload, po.length, po.next = int(r.Payload), int(r.PayloadLen), r.NextHeader
	return verdict
}

func (p *Pipeline) openESP(po *portion, h *header, r *status.Record) status.Reason {
	o, verdict := h.sa.Value.esp.Open(p.opt.Worker, p.frame[h.at:po.end], r.Number, &p.esp)
	if verdict == status.Verified {
		r.PayloadLen, r.PadLen, r.NextHeader = uint16(o.Len), o.PadLen, o.NextHeader
		po.payload, po.length, po.next = int(r.Payload), o.Len, o.NextHeader
	}
	return verdict
}

// record begins the record of one header as if it were left alone. A truncated number
// counts as 0.
func (p *Pipeline) record(po *portion, h *header) status.Record {
	su := &h.sa.Suite
	r := status.Record{
		Portion: po.kind, Protocol: uint8(h.protocol), SPI: h.sa.SPI, Handle: h.sa.Handle,
		State: status.NotProcessed, Reason: status.NotTried,
		IP: uint16(po.packet.Start), IPsec: uint16(h.at),
		IVLen: uint8(su.IVLen), ICVLen: uint8(su.ICVLen),
	}
	end := min(po.end, po.packet.Reach)
	numberEnd, payload := h.at+esp.HeaderLen, h.at+esp.HeaderLen+su.IVLen
	behind := su.ICVLen
	if h.protocol == sa.AH {
		numberEnd, payload = h.at+ah.FixedLen, h.at+ah.Len(p.frame[h.at:])
		behind = 0
		r.NextHeader = p.frame[h.at]
	}
	if numberEnd <= end {
		r.Number = p.number(h.sa.Mark, binary.BigEndian.Uint32(p.frame[numberEnd-4:]))
	}
	payload = min(payload, end)
	r.Payload, r.PayloadLen = uint16(payload), uint16(max(0, end-behind-payload))
	return r
}

// settle records how far the work on a header got.
func settle(r *status.Record, verdict status.Reason) {
	r.Reason, r.Code = verdict, verdict.Code(r.Portion)
	switch {
	case verdict == status.Verified:
		r.State = status.ICVValid
	case verdict.Authentic():
		r.State = status.FailedAfter
	default:
		r.State = status.FailedBefore
	}
}
