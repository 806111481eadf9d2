package explain

import (
	"encoding/hex"
	"fmt"
	"strings"

	"tapsec/internal/account"
	"tapsec/pipeline"
	"tapsec/sa"
	"tapsec/status"
	"tapsec/wire"
)

// Stage is what one stage of the pipeline found.
type Stage struct {
	Name  string `json:"name"`
	Lines []Line `json:"lines"`
}

// Line is one finding, and the offset of the bytes it is about; -1 for none.
type Line struct {
	At   int    `json:"at"`
	Text string `json:"text"`
}

func (s *Stage) say(at int, format string, args ...any) {
	s.Lines = append(s.Lines, Line{at, fmt.Sprintf(format, args...)})
}

// stages tells what happened to the frame: parse, tunnel, transport, annotate.
func (f *Frame) stages() []Stage {
	parse, tunnel, transport := f.Steps[0], f.Steps[1], f.Steps[2]
	first, second := Stage{Name: "parse"}, Stage{Name: "tunnel"}
	third, fourth := Stage{Name: "transport"}, Stage{Name: "annotate"}
	f.parsed(&first, &parse.Outer)
	f.checked(&second, parse.Outer, tunnel.Outer)
	f.inner(&second, tunnel)
	if transport.Outer.Checked && !tunnel.Outer.Checked {
		f.checked(&third, tunnel.Outer, transport.Outer)
	} else {
		f.checked(&third, tunnel.Inner, transport.Inner)
	}
	f.annotated(&fourth)
	all := []Stage{first, second, third, fourth}
	for i := range all {
		if len(all[i].Lines) == 0 {
			all[i].say(-1, "nothing to do")
		}
	}
	return all
}

// parsed describes the packet that a portion is in.
func (f *Frame) parsed(s *Stage, v *pipeline.View) {
	k := &v.Packet
	if k.Version == 0 {
		s.say(f.Span().From, "%s", f.Trailer.Reason.Sentence())
		return
	}
	what := "IPv4"
	if k.Version == 6 {
		what = "IPv6"
	}
	there := ""
	if k.Short {
		there = fmt.Sprintf(", of which %d are there", k.Reach-k.Start)
	}
	s.say(k.Start, "%s, %s > %s, %d bytes by its own length%s", what, k.Src, k.Dst, k.End-k.Start, there)
	if v.Encap {
		s.say(k.Header, "UDP, as NAT traversal has it, up to %d", v.End)
	}
	for i := range v.Headers {
		f.found(s, v, &v.Headers[i])
	}
	if len(v.Headers) == 0 {
		f.missed(s, v)
	} else if v.Skip != 0 {
		s.say(-1, "left alone: %s", v.Skip.Sentence())
	}
}

// upper writes a protocol as RFCs do.
func upper(p sa.Protocol) string { return strings.ToUpper(p.String()) }

func (f *Frame) found(s *Stage, v *pipeline.View, h *pipeline.Header) {
	s.say(h.At, "%s, SPI %s", upper(h.Protocol), sa.SPI(h.SA.SPI))
	by := "SPI"
	if h.SA.Dst.IsValid() {
		by += " and destination"
	}
	if h.SA.Src.IsValid() {
		by = "SPI, destination and source"
	}
	numbers := "numbers of 32 bits"
	if h.SA.ESN {
		numbers = "numbers of 64 bits (ESN)"
	}
	s.say(-1, "SA %s, found by %s: mode %s, %s, %s", h.SA.Name, by, h.SA.Mode, h.SA.Suite.Name, numbers)
}

// missed says why no SA matched a packet.
func (f *Frame) missed(s *Stage, v *pipeline.View) {
	bytes := f.Bytes
	if f.Opened != nil && v.Packet.Start > f.last().Outer.Packet.Start {
		bytes = f.Opened
	}
	at := v.Packet.Header
	if h, seq, numbered, ok := account.HeaderOf(bytes, &v.Packet); ok && v.Skip.OfIPsec() {
		if v.Encap {
			at += wire.UDPLen
		}
		text := fmt.Sprintf("%s, SPI %s", upper(h.Protocol), h.SPI)
		if numbered {
			text += fmt.Sprintf(", number %d", seq)
		}
		s.say(at, "%s", text)
		at = -1
	}
	if v.Skip == status.NoIPsec {
		s.say(at, "%s, so there is no IPsec to look at", protocolName(v.Packet.Proto))
		return
	}
	s.say(at, "left alone: %s", v.Skip.Sentence())
}

// checked describes the check of a portion, if the stage checked it.
func (f *Frame) checked(s *Stage, before, after pipeline.View) {
	if before.Checked || !after.Checked {
		return
	}
	for i := range after.Headers {
		f.compared(s, &after, &after.Headers[i])
	}
	if after.Verified {
		s.say(after.Payload, "%s portion good: %d bytes of %s", after.Portion, after.Length, protocolName(after.Next))
	}
}

// compared describes one header's check.
func (f *Frame) compared(s *Stage, v *pipeline.View, h *pipeline.Header) {
	rec := f.record(h)
	if rec == nil {
		return
	}
	s.say(h.At, "%s of %s, number %d", upper(h.Protocol), h.SA.Name, rec.Number)
	if rec.Reason == status.NotTried {
		s.say(-1, "%s", rec.Reason.Sentence())
		return
	}
	if h.ICV > 0 && h.ICV+h.SA.Suite.ICVLen <= len(f.Bytes) && (rec.State == status.ICVValid || h.Computed != nil || rec.State == status.FailedAfter) {
		f.icv(s, v, h)
	}
	if rec.Reason != status.Verified {
		s.say(-1, "%s: %s", rec.Reason.Qualified(), rec.Reason.Sentence())
	}
}

// icv shows the packet's ICV and the one it should have.
func (f *Frame) icv(s *Stage, v *pipeline.View, h *pipeline.Header) {
	covers := fmt.Sprintf("over bytes %d to %d: header, IV and ciphertext", h.At, h.ICV)
	if h.Protocol == sa.AH {
		covers = fmt.Sprintf("over bytes %d to %d: the whole packet, what changes on its way and the ICV as zeros", v.Packet.Start, v.Packet.End)
	}
	if h.SA.ESN {
		covers += ", and the number's high half"
	}
	bytes := f.Bytes
	if f.inside() && f.Opened != nil && len(f.Opened) >= h.ICV+h.SA.Suite.ICVLen {
		bytes = f.Opened
	}
	found := hex.EncodeToString(bytes[h.ICV:][:h.SA.Suite.ICVLen])
	if h.Computed == nil {
		s.say(h.ICV, "ICV %s is right, %s", found, covers)
		return
	}
	s.say(h.ICV, "ICV found    %s", found)
	s.say(-1, "ICV computed %s, %s", hex.EncodeToString(h.Computed), covers)
}

func (f *Frame) record(h *pipeline.Header) *status.Record {
	for i := range f.Trailer.Records[:f.Trailer.N] {
		if rec := &f.Trailer.Records[i]; int(rec.IPsec) == h.At {
			return rec
		}
	}
	return nil
}

// inner describes what the tunnel carried.
func (f *Frame) inner(s *Stage, step pipeline.Step) {
	if !step.Outer.Verified || step.Outer.Portion != status.TunnelPortion {
		return
	}
	if step.Inner.Packet.Version == 0 {
		s.say(step.Outer.Payload, "%s", f.Trailer.Reason.Sentence())
		return
	}
	f.parsed(s, &step.Inner)
}

func (f *Frame) annotated(s *Stage) {
	s.say(-1, "word %s", wordText(f.Trailer.Word))
	s.say(-1, "reason %s", f.Trailer.Reason.Qualified())
	if f.then != 0 {
		s.say(-1, "SAs or switches have changed since the frame came; then it was %s", f.then.Qualified())
	}
}

func protocolName(p uint8) string {
	switch p {
	case wire.ProtoIPv4:
		return "IPv4"
	case wire.ProtoIPv6:
		return "IPv6"
	case wire.ProtoTCP:
		return "TCP"
	case wire.ProtoUDP:
		return "UDP"
	case wire.ProtoICMP:
		return "ICMP"
	case wire.ProtoICMPv6:
		return "ICMPv6"
	case wire.ProtoESP:
		return "ESP"
	case wire.ProtoAH:
		return "AH"
	case wire.ProtoNoNext:
		return "nothing (a dummy)"
	case wire.ProtoAggFrag:
		return "AGGFRAG (IP-TFS, RFC 9347)"
	}
	return fmt.Sprintf("protocol %d", p)
}
