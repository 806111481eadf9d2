package transport_test

import (
	"bytes"
	"testing"

	"tapsec/pipeline"
	"tapsec/sa"
	"tapsec/status"
	"tapsec/transport"
)

// tampered is an annotated frame with another trailer, whose CRC is right.
func tampered(t testing.TB, annotated []byte, change func(*status.Trailer)) []byte {
	t.Helper()
	body, trailer, err := status.Split(annotated)
	if err != nil {
		t.Fatal(err)
	}
	change(&trailer)
	return trailer.AppendTo(bytes.Clone(body))
}

// Contract, The transport, step 1: no valid trailer, no delivery.
func TestNoAnnotation(t *testing.T) {
	h := newHost(t, setup{})
	good := func() []byte { return h.annotate(framed(plain4())) }
	for name, change := range map[string]func([]byte) []byte{
		"nothing":       func([]byte) []byte { return nil },
		"no trailer":    func([]byte) []byte { return framed(plain4()) },
		"cut":           func(b []byte) []byte { return b[:len(b)-1] },
		"cut in front":  func(b []byte) []byte { return b[len(b)-status.BaseLen+1:] },
		"magic":         func(b []byte) []byte { b[len(b)-1] ^= 1; return b },
		"other version": func(b []byte) []byte { b[len(b)-10] = 2; return b },
		"CRC":           func(b []byte) []byte { b[len(b)-5] ^= 1; return b },
		"word":          func(b []byte) []byte { b[len(b)-status.BaseLen] ^= 2; return b },
		"padding":       func(b []byte) []byte { return append(b, 0) },
	} {
		t.Run(name, func(t *testing.T) {
			h.tb = t
			h.dropped(change(good()), transport.NoAnnotation)
		})
	}
	h.tb = t
	h.delivers(framed(plain4()), framed(plain4()))
}

// Contract, The transport, step 1, and The trailer: a trailer that came over the wire is payload, ours
// is behind it. It makes no clear packet a protected one.
func TestForgedTrailer(t *testing.T) {
	esp := espSA(sa.Transport)
	h := newHost(t, setup{sas: []*sa.SA{esp}, policy: []sa.Policy{{Action: sa.Protect}}})
	opened := h.annotate(framed(once(t, 1, plain4(), esp)))
	h.drops(opened, transport.ICV) // ESP still, but decrypted already
	claim := tampered(t, opened, func(r *status.Trailer) { r.Records[0].IP = 14 })
	trailer := claim[len(claim)-status.BaseLen-status.RecordLen:]
	h.drops(append(framed(plain4()), trailer...), transport.Clear)
	if w := h.window("esp-transport"); w.Seen != 0 {
		t.Errorf("a forged trailer moved the window: %+v", w)
	}
}

// Contract, The transport, step 1: a transport takes no frames in decap form, whatever is in them.
func TestDecapsulated(t *testing.T) {
	esp := espSA(sa.Transport)
	h := newHost(t, setup{sas: []*sa.SA{esp}})
	h.nic = pipeline.New(h.sad, pipeline.Options{Form: status.Decap})
	h.drops(framed(once(t, 1, plain4(), esp)), transport.Decapsulated)
}

// Contract, The transport, step 1: word against records. Each change makes a trailer contradict
// itself or the frame.
func TestBadAnnotation(t *testing.T) {
	rec := func(i int, change func(*status.Record)) func(*status.Trailer) {
		return func(r *status.Trailer) { change(&r.Records[i]) }
	}
	word := func(w status.Word) func(*status.Trailer) { return func(r *status.Trailer) { r.Word = w } }
	fail := func(i int, code status.Code) func(*status.Trailer) {
		return rec(i, func(r *status.Record) { r.State, r.Code, r.Reason = status.FailedBefore, code, status.ESPICV })
	}
	all := func(changes ...func(*status.Trailer)) func(*status.Trailer) {
		return func(r *status.Trailer) {
			for _, c := range changes {
				c(r)
			}
		}
	}
	esp, tun := espSA(sa.Transport), espSA(sa.Tunnel)
	both := framed(once(t, 1, plain4(), esp, tun))
	for name, change := range map[string]func(*status.Trailer){
		"nothing done":               word(0),
		"done, not next":             word(2),
		"next, not done":             word(4),
		"a reserved bit":             word(6 | 8),
		"another reserved bit":       word(6 | 1<<15),
		"a status without a failure": word(word6(status.TransportESPAuthFailed)),
		"an unknown status":          word(6 | 9<<16),
		"a failure without a status": fail(1, status.TransportESPAuthFailed),
		"another failure's status":   all(fail(1, status.TransportESPAuthFailed), word(word6(status.TransportAHAuthFailed))),
		"the second failure's": all(fail(0, status.TunnelESPAuthFailed), fail(1, status.TransportESPAuthFailed),
			word(word6(status.TransportESPAuthFailed))),
		"failed, but success":       all(rec(1, func(r *status.Record) { r.State = status.FailedBefore })),
		"failed later, but success": all(rec(1, func(r *status.Record) { r.State = status.FailedAfter })),
		"valid, but a code":         all(rec(0, func(r *status.Record) { r.Code = 5 }), word(word6(5))),
		"left alone, but a code": all(rec(1, func(r *status.Record) { r.State, r.Code = status.NotProcessed, 3 }),
			word(status.CryptoDone.WithCode(3))),
		"left alone, but next": rec(1, func(r *status.Record) { r.State = status.NotProcessed }),
		"state 0":              rec(0, func(r *status.Record) { r.State = 0 }),
		"state 5":              rec(1, func(r *status.Record) { r.State = 5 }),
		"state 0, failed": all(rec(1, func(r *status.Record) { r.State, r.Code = 0, status.TransportESPAuthFailed }),
			word(word6(status.TransportESPAuthFailed))),
		"state 5, failed": all(rec(1, func(r *status.Record) { r.State, r.Code = 5, status.TransportESPAuthFailed }),
			word(word6(status.TransportESPAuthFailed))),
		"all beyond the frame":  rec(1, func(r *status.Record) { r.IP, r.IPsec, r.Payload, r.PayloadLen = 5000, 5020, 5040, 0 }),
		"no portion":            rec(0, func(r *status.Record) { r.Portion = 0 }),
		"portion 3":             rec(1, func(r *status.Record) { r.Portion = 3 }),
		"twice the same one":    rec(1, func(r *status.Record) { r.Portion = status.TunnelPortion }),
		"no record":             func(r *status.Trailer) { r.N = 0 },
		"a record missing":      func(r *status.Trailer) { r.N = 1 },
		"a record left out":     func(r *status.Trailer) { r.Omitted = 1 },
		"IPsec in front of IP":  rec(0, func(r *status.Record) { r.IP = r.IPsec }),
		"payload before IPsec":  rec(0, func(r *status.Record) { r.Payload = r.IPsec - 1 }),
		"payload beyond":        rec(0, func(r *status.Record) { r.PayloadLen += 1000 }),
		"payload far beyond":    rec(1, func(r *status.Record) { r.Payload, r.PayloadLen = 0xffff, 0xffff }),
		"IPsec somewhere else":  rec(0, func(r *status.Record) { r.IPsec++ }),
		"the inner one, too":    rec(1, func(r *status.Record) { r.IPsec-- }),
		"payload into the next": rec(1, func(r *status.Record) { r.PayloadLen = uint16(len(both)) - r.Payload }),
		"a shorter wire length": func(r *status.Trailer) { r.WireLen-- },
	} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t, setup{sas: []*sa.SA{esp, tun}})
			annotated := h.annotate(both)
			h.dropped(tampered(t, annotated, change), transport.BadAnnotation)
		})
	}
	h := newHost(t, setup{sas: []*sa.SA{esp, tun}})
	h.delivers(both, framed(plain4()))
}

func word6(c status.Code) status.Word {
	return (status.CryptoDone | status.NextCryptoDone).WithCode(c)
}

// A frame that is no IP packet has no records.
func TestBadAnnotationNotIP(t *testing.T) {
	h := newHost(t, setup{sas: []*sa.SA{espSA(sa.Transport)}})
	good := h.annotate(framed(once(t, 1, plain4(), espSA(sa.Transport))))
	good[12], good[13] = 0x08, 0x06
	h.dropped(good, transport.BadAnnotation)
}

// Contract, The transport, step 2: a portion that the NIC claims verified for an SA that we do not
// have delivers nothing.
func TestVerifiedForNobody(t *testing.T) {
	esp := espSA(sa.Transport)
	h, stranger := newHost(t, setup{}), newHost(t, setup{sas: []*sa.SA{esp}, prepare: func(d *pipeline.SAD) { d.ForcePressure(true) }})
	h.dropped(stranger.annotate(framed(once(t, 1, plain4(), esp))), transport.NoSA)
	h.dropped(stranger.annotate(framed(flipped(once(t, 2, plain4(), esp)))), transport.NoSA)
	for i, e := range h.events {
		if e.SA != "" || e.Protocol != sa.ESP || e.SPI != esp.SPI || i == 1 && e.Number != 2 {
			t.Errorf("told %+v", e)
		}
	}
}
