// Package sa holds security associations as data: what one is, which suites
// and capability profiles there are, the table that finds the SA of a packet,
// and the sequence number that an ESN packet only half carries.
//
// It knows no cryptography (esp and ah make ciphers of the keys), and of packets only the
// flow that selectors match. Any number of goroutines may use a Table and a Mark;
// everything else is a value that nobody changes once it is in a table.
package sa

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"tapsec/wire"
)

// Protocol is the IP protocol number of an IPsec header.
type Protocol uint8

// The IPsec protocols.
const (
	ESP Protocol = wire.ProtoESP // RFC 4303
	AH  Protocol = wire.ProtoAH  // RFC 4302
)

// String names the protocol in lower case, as configurations do.
func (p Protocol) String() string { return protocols.of(p, "protocol") }

// MarshalText writes String.
func (p Protocol) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// UnmarshalText reads "esp" or "ah".
func (p *Protocol) UnmarshalText(b []byte) error { return protocols.read(p, b) }

// Mode says which portion of a frame an SA protects.
type Mode uint8

// The modes (RFC 4301 section 4.1).
const (
	Transport Mode = 1 // transport mode, the end-to-end SA: it makes the transport portion
	Tunnel    Mode = 2 // tunnel mode, the SA with tunnel endpoints: the tunnel portion
	Auto      Mode = 3 // one of the two, not known which (see Of); such an SA seals nothing
)

// Of is the mode of a received packet, given its authenticated next header: m itself, and
// for Auto tunnel mode if the header is IPv4 or IPv6, else transport mode.
func (m Mode) Of(next uint8) Mode {
	switch {
	case m != Auto:
		return m
	case next == wire.ProtoIPv4 || next == wire.ProtoIPv6:
		return Tunnel
	}
	return Transport
}

// String names the mode.
func (m Mode) String() string { return modes.of(m, "mode") }

// UnmarshalText reads "transport", "tunnel" or "auto".
func (m *Mode) UnmarshalText(b []byte) error { return modes.read(m, b) }

// Offload says whether the NIC should hold the SA.
type Offload uint8

// The offload wishes. The zero value is Required.
const (
	Required  Offload = iota // an SA that the NIC cannot hold is an error
	Preferred                // stays with the host if the NIC cannot hold it
	Never                    // always the host's
)

// String names the wish.
func (o Offload) String() string { return offloads.of(o, "offload") }

// UnmarshalText reads "required", "preferred" or "never".
func (o *Offload) UnmarshalText(b []byte) error { return offloads.read(o, b) }

// EncapPort is the UDP port of encapsulated ESP.
const EncapPort = wire.EncapPort

// Encapsulated reports whether UDP between these ports may carry ESP.
func Encapsulated(src, dst uint16) bool { return wire.Encapsulated(src, dst) }

// The sizes of a replay window in packets.
const (
	DefaultWindow = 64
	MinWindow     = 32 // RFC 4303 section 3.4.3
	MaxWindow     = 65536
)

// ValidWindow reports whether a replay window may have that size.
func ValidWindow(packets uint64) bool { return packets >= MinWindow && packets <= MaxWindow }

// SA is one security association. Src and Dst may be invalid (the zero
// Addr), which matches any address. One that a program makes itself checks no pad bytes
// and has to be held by the NIC unless it sets PadCheck and Offload; configs and keys set
// both. The order of its fields leaves few holes: there may be a million of them.
type SA struct {
	Name      string     `yaml:"name"`
	Dst       netip.Addr `yaml:"dst"`
	Src       netip.Addr `yaml:"src"`
	SPI       uint32     `yaml:"spi"`
	Protocol  Protocol   `yaml:"protocol"`
	Mode      Mode       `yaml:"mode"`
	Direction Direction  `yaml:"direction"` // as seen from the host that has the SA
	Offload   Offload    `yaml:"offload"`
	Suite     Suite      `yaml:"suite"`

	EncryptionKey Key `yaml:"encryption_key"` // ESP: cipher key, then the suite's salt, if any
	IntegrityKey  Key `yaml:"integrity_key"`  // AH, and ESP suites with a separate integrity algorithm

	Bundle    string    `yaml:"bundle"` // on an AH SA: the name of the ESP SA beneath it
	Selector  *Selector `yaml:"selector"`
	Lifetimes Lifetimes `yaml:"lifetimes"`

	ESN      bool   `yaml:"esn"`
	PadCheck bool   `yaml:"pad_check"` // pad bytes must be 1, 2, 3 ... (RFC 4303 section 2.4)
	Encap    bool   `yaml:"encap"`     // UDP-encapsulated
	EncapSrc uint16 `yaml:"encap_src"` // source port to send from; 0 is EncapPort
	EncapDst uint16 `yaml:"encap_dst"` // destination port to send to; 0 is EncapPort

	ReplayOff bool   `yaml:"replay_off"` // the host takes every number, any number of times
	Window    uint32 `yaml:"window"`     // the host's replay window in packets; 0 is DefaultWindow
	ReqID     uint32 `yaml:"reqid"`      // the host's number of the policy that it is for, the same after a rekey; 0 is unknown

	// How far a running SA has got that is taken over; 64 bits with ESN, else 32.
	SeqHigh uint32 `yaml:"seq_high"` // the high half until a number has been authenticated
	Seq     uint64 `yaml:"seq"`      // inbound: the highest number received, 0 before the first
	Bitmap  Bitmap `yaml:"bitmap"`   // inbound: which of the numbers up to Seq were received; nil: any may have been
	OSeq    uint64 `yaml:"oseq"`     // outbound: the last number sent, 0 before the first
}

// String names the SA without any key.
func (s *SA) String() string {
	return fmt.Sprintf("%s (%s %s, SPI 0x%08x, to %s)", s.Name, s.Protocol, s.Mode, s.SPI, s.Dst)
}

// Problem is a mistake in an SA: the configuration field and what is wrong.
type Problem struct {
	Field string // the field's name in the configuration
	Msg   string // what was expected and what was found
}

// Error gives field and message.
func (p Problem) Error() string { return p.Field + ": " + p.Msg }

// MaxName is the longest name of an SA, in characters.
const MaxName = 128

// validName reports whether a name may go to terminals, logs and pages as it is.
func validName(name string) bool {
	return utf8.RuneCountInString(name) <= MaxName && !strings.ContainsFunc(name, func(r rune) bool { return !unicode.IsPrint(r) })
}

// Check returns everything that is wrong with the SA by itself. A cipher without integrity
// is accepted only if bundled says that an AH covers it.
func (s *SA) Check(bundled, allowLegacy bool) []Problem {
	var bad []Problem
	say := func(field, format string, args ...any) {
		bad = append(bad, Problem{field, fmt.Sprintf(format, args...)})
	}
	if !validName(s.Name) {
		say("name", "expected at most %d characters that can be printed", MaxName)
	}
	if s.SPI == 0 {
		say("spi", "0 is reserved and never on the wire (RFC 4303 section 2.1)")
	}
	switch {
	case s.Mode == 0 || s.Mode > Auto:
		say("mode", "expected transport, tunnel or auto")
	case s.Mode == Auto && s.Direction == Outbound:
		say("mode", "auto tells of what came in which mode it is; say transport or tunnel where direction is out")
	}
	if s.Src.IsValid() && !s.Dst.IsValid() {
		say("dst", "is needed where src is given")
	} else if s.Src.IsValid() && s.Src.Is4() != s.Dst.Is4() {
		say("src", "%s and dst %s are of different IP versions", s.Src, s.Dst)
	}
	s.checkSuite(bundled, allowLegacy, say)
	s.checkNumbers(say)
	if !Encapsulated(s.EncapPorts()) {
		say("encap_src", "expected %d as one of the two ports, found %d and, as encap_dst, %d", EncapPort, s.EncapSrc, s.EncapDst)
	} else if s.EncapSrc|s.EncapDst != 0 && !s.Encap {
		say("encap", "is needed where ports of it are given")
	}
	if s.Protocol == AH && s.Encap {
		say("encap", "AH is never UDP-encapsulated (RFC 3948)")
	}
	if s.Protocol == ESP && s.Bundle != "" {
		say("bundle", "belongs on the AH SA and names the ESP SA beneath it")
	}
	if s.Window != 0 && !ValidWindow(uint64(s.Window)) {
		say("window", "expected %d to %d, found %d", MinWindow, MaxWindow, s.Window)
	}
	if s.Direction == Outbound && !s.Dst.IsValid() {
		say("dst", "is needed where direction is out")
	}
	return bad
}

func (s *SA) checkNumbers(say func(field, format string, args ...any)) {
	if s.SeqHigh != 0 && !s.ESN {
		say("seq_high", "needs esn: true")
	}
	for _, n := range []struct {
		field string
		value uint64
		wrong Direction
	}{{"seq", s.Seq, Outbound}, {"oseq", s.OSeq, Inbound}} {
		switch high := uint32(n.value >> 32); {
		case n.value != 0 && s.Direction == n.wrong:
			say(n.field, "means nothing where direction is %s", s.Direction)
		case high != 0 && !s.ESN:
			say(n.field, "0x%x is beyond 32 bits and needs esn: true", n.value)
		case n.value != 0 && s.SeqHigh != 0 && high != s.SeqHigh:
			say(n.field, "0x%x contradicts seq_high, 0x%x; keep one of them", n.value, s.SeqHigh)
		}
	}
	window := cmp.Or(s.Window, DefaultWindow)
	switch n := s.Bitmap.Len(); {
	case s.Bitmap == nil:
	case s.Seq == 0:
		say("bitmap", "needs seq, the number that its lowest bit stands for")
	case !s.Bitmap.Has(0):
		say("bitmap", "expected the lowest bit to be set, since seq itself was received")
	case n > int(window):
		say("bitmap", "expected at most the %d bits of the window, found %d", window, n)
	case uint64(n) > s.Seq:
		say("bitmap", "has %d bits, but there are %d numbers up to seq", n, s.Seq)
	}
}

func (s *SA) checkSuite(bundled, allowLegacy bool, say func(field, format string, args ...any)) {
	su := s.Suite
	if su.Name == "" || su.Protocol != s.Protocol {
		say("suite", "expected a suite for %s, found %s", s.Protocol, Quote(su.Name))
		return
	}
	if su.Legacy() && !allowLegacy {
		say("suite", "%s is obsolete (RFC 8221); say allow_legacy: true to use it all the same", su.Name)
	}
	if su.ICVLen == 0 && !bundled {
		say("suite", "%s has no integrity; it is accepted only as the ESP of a bundle", su.Name)
	}
	want := func(field string, k Key, n int) {
		if k.Len() != n {
			say(field, "%s needs %d bytes%s, found %d", su.Name, n, su.saltNote(field), k.Len())
		}
	}
	want("encryption_key", s.EncryptionKey, su.EncryptionKeyLen())
	want("integrity_key", s.IntegrityKey, su.IntegrityKeyLen())
}

// InUDP reports whether packets of the SA may come in UDP. With mode auto they may though Encap
// does not say so: who does not know the mode hardly knows this.
func (s *SA) InUDP() bool { return s.Encap || s.Protocol == ESP && s.Mode == Auto }

// EncapPorts returns the UDP ports that an encapsulated SA sends with.
func (s *SA) EncapPorts() (src, dst uint16) {
	return cmp.Or(s.EncapSrc, EncapPort), cmp.Or(s.EncapDst, EncapPort)
}

// Same reports whether two SAs are the same association, whose sequence numbers go on:
// identity, mode, suite and keys agree.
func (s *SA) Same(o *SA) bool {
	return s == o || s.ID() == o.ID() && s.Mode == o.Mode && s.ESN == o.ESN && s.Suite == o.Suite &&
		s.EncryptionKey.Equal(o.EncryptionKey) && s.IntegrityKey.Equal(o.IntegrityKey)
}

// Unchanged reports whether two SAs agree in every field.
func (s *SA) Unchanged(o *SA) bool {
	if s == o {
		return true
	}
	selector := s.Selector == o.Selector || s.Selector != nil && o.Selector != nil && *s.Selector == *o.Selector
	return s.Same(o) && selector && s.Name == o.Name && s.Direction == o.Direction && s.ReqID == o.ReqID && s.SeqHigh == o.SeqHigh &&
		s.Encap == o.Encap && s.EncapSrc == o.EncapSrc && s.EncapDst == o.EncapDst && s.Bundle == o.Bundle &&
		s.Offload == o.Offload && s.PadCheck == o.PadCheck && s.Seq == o.Seq && s.OSeq == o.OSeq &&
		slices.Equal(s.Bitmap, o.Bitmap) && (s.Bitmap == nil) == (o.Bitmap == nil) &&
		s.Window == o.Window && s.ReplayOff == o.ReplayOff && s.Lifetimes == o.Lifetimes
}

// Advance takes over the numbers that o has come to, the same SA elsewhere, where
// they are higher.
func (s *SA) Advance(o *SA) {
	if o.Seq > s.Seq {
		s.Seq, s.Bitmap = o.Seq, o.Bitmap
	}
	s.OSeq = max(s.OSeq, o.OSeq)
}
