package explain

import (
	"fmt"
	"strings"

	"tapsec/pipeline"
	"tapsec/sa"
	"tapsec/status"
	"tapsec/wire"
)

// Rows are those of the contract's table that the frame belongs to, the most telling first.
func (f *Frame) Rows() []string {
	t := &f.Trailer
	rows := []string{f.row()}
	if v := f.subject(); t.Reason == status.Verified && t.Word.Done() && v.Portion == status.TransportPortion && (v.Next == wire.ProtoAH || v.Next == wire.ProtoESP) {
		rows = append(rows, "30")
	}
	for i := range t.Records[:t.N] {
		if rec := &t.Records[i]; f.auto(rec) && t.Word.Done() {
			rows = append(rows, "34")
			break
		}
	}
	if f.Replayed {
		rows = append(rows, "25")
	}
	if t.Word.DeleteSA() {
		rows = append(rows, "26")
	}
	return rows
}

// auto reports whether a good record's SA leaves the mode open.
func (f *Frame) auto(rec *status.Record) bool {
	for _, v := range []pipeline.View{f.last().Outer, f.last().Inner} {
		for _, h := range v.Headers {
			if h.At == int(rec.IPsec) && h.SA.Mode == sa.Auto && rec.State == status.ICVValid {
				return true
			}
		}
	}
	return false
}

// row is the frame's own row.
func (f *Frame) row() string {
	r, inside := f.Trailer.Reason, f.inside()
	if !r.Failed() && r != status.Verified {
		if inside {
			return insideAlone(r)
		}
		return alone(r)
	}
	if letter, ok := syntax[r]; ok {
		if f.Trailer.Word.Next() {
			return "28"
		}
		return letter
	}
	return f.rowOfICV()
}

// syntax maps the checks other than that of an ICV to their rows.
var syntax = map[status.Reason]string{
	status.ProtocolMismatch: "22", status.BundleMismatch: "22", status.PadBytes: "24",
	status.IPLength: "23", status.UDPLength: "23", status.ESPLength: "23", status.AHLength: "23", status.PadLength: "23", status.OptionSyntax: "23",
}

func alone(r status.Reason) string {
	switch r {
	case status.NotIP, status.BadIPHeader, status.NoIPsec:
		return "1"
	case status.NoSA, status.AddressMismatch, status.EncapMismatch:
		return "2"
	case status.SADeleted:
		return "27"
	case status.SPIOutside:
		return "23b"
	case status.IKE, status.KeepAlive, status.UDPTooShort, status.UDPNoSA:
		return "4"
	case status.NoAHESP:
		return "21"
	}
	return "3"
}

// insideAlone is the row of a good tunnel in which something is left alone.
func insideAlone(r status.Reason) string {
	switch r {
	case status.NoSA, status.AddressMismatch, status.EncapMismatch, status.UDPNoSA, status.SADeleted:
		return "15"
	case status.NoCombined:
		return "17"
	case status.InnerTunnelSA:
		return "29"
	case status.Dummy, status.InnerNotIP, status.InnerLength:
		return "32"
	}
	return "31"
}

// rowOfICV is the row of a frame that its ICVs decide.
func (f *Frame) rowOfICV() string {
	v, next, r := f.subject(), f.Trailer.Word.Next(), f.Trailer.Reason
	tunnel := v.Portion == status.TunnelPortion
	switch both := len(v.Headers) == 2; {
	case v.Portion == status.NoPortion:
		return "35"
	case both && next:
		return "33"
	case both && r == status.AHICV:
		return "19"
	case both && r == status.ESPICV:
		return "20"
	case both:
		return "18"
	case next:
		return pick(r, "11", "12", "13")
	case tunnel:
		return pick(r, "6", "9", "10")
	}
	return pick(r, "5", "7", "8")
}

func pick(r status.Reason, good, ah, esp string) string {
	switch r {
	case status.AHICV:
		return ah
	case status.ESPICV:
		return esp
	}
	return good
}

// clause is where a rule is written, for ESP and for AH.
type clause struct{ esp, ah string }

func same(text string) clause { return clause{text, text} }

var clauses = map[status.Reason]clause{
	status.NotIP:            same("IEEE 802.3, EtherType"),
	status.BadIPHeader:      same("RFC 791, 3.1; RFC 8200, 3"),
	status.NoIPsec:          same("RFC 4303, 3.1; RFC 4302, 3.1"),
	status.NoSA:             {"RFC 4303, 3.4.2", "RFC 4302, 3.4.2"},
	status.AddressMismatch:  same("RFC 4301, 4.1"),
	status.EncapMismatch:    same("RFC 3948, 2.1"),
	status.SADeleted:        {"RFC 4303, 3.4.2", "RFC 4302, 3.4.2"},
	status.SPIOutside:       {"RFC 4303, 2.1", "RFC 4302, 2.4"},
	status.Fragment:         {"RFC 4303, 3.4.1", "RFC 4302, 3.4.1"},
	status.IPv4Options:      same("RFC 791, 3.1"),
	status.IPv6Extensions:   same("RFC 8200, 4"),
	status.RoutingHeader:    {"RFC 8200, 4.4", "RFC 4302, 3.3.3.1.2"},
	status.Jumbogram:        same("RFC 2675, 2"),
	status.IKE:              same("RFC 3948, 2.2"),
	status.KeepAlive:        same("RFC 3948, 2.3"),
	status.UDPTooShort:      same("RFC 3948, 2.1"),
	status.UDPNoSA:          same("RFC 3948, 2.1"),
	status.Dummy:            same("RFC 4303, 2.6"),
	status.InnerNotIP:       same("RFC 4301, 5.2"),
	status.InnerLength:      same("RFC 791, 3.1; RFC 8200, 3"),
	status.Verified:         {"RFC 4303, 3.4.4", "RFC 4302, 3.4.4"},
	status.AHICV:            same("RFC 4302, 3.4.4"),
	status.ESPICV:           same("RFC 4303, 3.4.4"),
	status.ProtocolMismatch: same("RFC 4301, 4.1"),
	status.BundleMismatch:   same("RFC 4301, 5.2"),
	status.IPLength:         same("RFC 791, 3.1; RFC 8200, 3"),
	status.UDPLength:        same("RFC 768; RFC 3948, 2.1"),
	status.ESPLength:        same("RFC 4303, 2.3 and 2.4"),
	status.AHLength:         same("RFC 4302, 2.2"),
	status.PadLength:        same("RFC 4303, 2.5"),
	status.OptionSyntax:     same("RFC 4302, 3.3.3.1"),
	status.PadBytes:         same("RFC 4303, 2.4"),
}

// law names the rules that the frame's reason rests on.
func (f *Frame) law() string {
	rows, word := f.Rows(), "row"
	if len(rows) > 1 {
		word = "rows"
	}
	law := fmt.Sprintf("contract %s %s", word, strings.Join(rows, " and "))
	c := clauses[f.Trailer.Reason]
	text := c.esp
	if f.subject().Packet.Proto == wire.ProtoAH {
		text = c.ah
	}
	if text != "" {
		law += "; " + text
	}
	return law
}

// Other is what another implementation would call the frame's fate.
type Other struct {
	Who  string `json:"who"`
	Says string `json:"says"`
}

// inLinux is what Linux does with a frame that ends for a reason, by its counters in
// /proc/net/xfrm_stat unless it says otherwise (net/xfrm/xfrm_input.c, net/ipv4/esp4.c,
// net/ipv4/ah4.c of Linux 6).
var inLinux = map[status.Reason]string{
	status.NoSA:             "drops it, XfrmInNoStates",
	status.SADeleted:        "drops it, XfrmInNoStates",
	status.UDPNoSA:          "drops it, XfrmInNoStates",
	status.EncapMismatch:    "drops it, XfrmInStateMismatch",
	status.ProtocolMismatch: "drops it, XfrmInNoStates: its states are found by protocol, too",
	status.Fragment:         "puts the fragments together first",
	status.AHICV:            "drops it, XfrmInStateProtoError, and counts it as failed at the state",
	status.ESPICV:           "drops it, XfrmInStateProtoError, and counts it as failed at the state",
	status.ESPLength:        "drops it, XfrmInStateProtoError",
	status.AHLength:         "drops it, XfrmInStateProtoError",
	status.PadLength:        "drops it, XfrmInStateProtoError",
	status.PadBytes:         "takes it: it does not look at pad bytes",
	status.IPLength:         "drops it before IPsec, InTruncatedPkts",
	status.Dummy:            "drops it, XfrmInStateProtoError, and its number stays new to the window",
	status.KeepAlive:        "drops it and counts nothing",
	status.IKE:              "gives it to the IKE daemon's socket",
	status.InnerTunnelSA:    "opens the second tunnel, too",
	status.Verified:         "takes it, if window and policy do",
}

const espHeader = 8 // bytes: SPI and number

// linux is what Linux does with the frame; empty if that is not known.
func (f *Frame) linux() string {
	r, v := f.Trailer.Reason, f.subject()
	if n := len(v.Headers); r == status.ESPLength && n > 0 {
		h := &v.Headers[n-1]
		room := v.End - h.At - espHeader - h.SA.Suite.IVLen - h.SA.Suite.ICVLen
		if h.SA.Suite.Block <= 4 && room >= 2 {
			return "takes it if the ICV is right, and window and policy do: it does not look at the alignment"
		}
	}
	return inLinux[r]
}

// Others says what other implementations would call the frame's fate, as far as is known.
func (f *Frame) Others() []Other {
	var all []Other
	r, opened := f.Trailer.Reason, f.inside()
	if says := f.linux(); says != "" {
		if opened && r != status.Dummy && r != status.InnerTunnelSA && r != status.Verified {
			says = "opens the tunnel, if its window lets it; of a packet in it that is to itself: " + says
		}
		all = append(all, Other{"Linux", says})
	}
	switch {
	case r.Failed():
		all = append(all, Other{"DPDK", "RTE_MBUF_F_RX_SEC_OFFLOAD and _FAILED"})
		if r == status.ESPICV || r == status.AHICV {
			all = append(all, Other{"VPP", f.vpp()})
		}
		all = append(all, Other{"virtio 1.4", "SECURITY and SECURITY_ERR"})
	case r == status.Verified || opened:
		all = append(all, Other{"DPDK", "RTE_MBUF_F_RX_SEC_OFFLOAD"}, Other{"virtio 1.4", "SECURITY"})
	case r == status.NoSA || r == status.SADeleted:
		all = append(all, Other{"DPDK", "neither security flag"}, Other{"virtio 1.4", "SECURITY and SECURITY_ERR, as for a wrong ICV"})
	}
	return all
}

// vpp has one counter for combined modes and another for separate integrity.
func (f *Frame) vpp() string {
	for _, h := range f.subject().Headers {
		if len(h.Computed) > 0 && h.Protocol == sa.ESP && h.SA.Suite.AuthLen == 0 {
			return "ESP decryption failed"
		}
	}
	return "Integrity check failed"
}

// wordText is a word with the names of its parts.
func wordText(w status.Word) string {
	text := fmt.Sprintf("0x%s:", w)
	for _, bit := range []struct {
		set  bool
		name string
	}{{w.Done(), "CryptoDone"}, {w.Next(), "NextCryptoDone"}, {w.DeleteSA(), "SaDeleteReq"}} {
		if bit.set {
			text += " " + bit.name + ","
		}
	}
	if w == 0 {
		return text + " nothing was checked"
	}
	return text + " " + w.Code().String()
}
