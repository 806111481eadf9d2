package status

import "tapsec/internal/reason"

// Portion is one of the two parts of a frame that an SA bundle can protect.
type Portion uint8

// The portions, numbered as in the trailer.
const (
	NoPortion        Portion = 0 // not known: an SA with mode auto whose next header is not authentic
	TunnelPortion    Portion = 1 // the SA with tunnel endpoints
	TransportPortion Portion = 2 // the end-to-end SA
)

// String names the portion; an unknown one is "auto", after the mode.
func (p Portion) String() string {
	switch p {
	case NoPortion:
		return "auto"
	case TunnelPortion:
		return "tunnel"
	case TransportPortion:
		return "transport"
	}
	return "unknown"
}

// Reason says why a frame, or one portion of it, ended as it did. There is one
// list for the whole project; numbers are part of the trailer's format and are
// never reused.
type Reason uint16

// Reasons of frames that the NIC left alone, or did not look at further.
const (
	NotIP           Reason = 1  // row 1
	BadIPHeader     Reason = 2  // row 1
	NoIPsec         Reason = 3  // row 1
	NoSA            Reason = 4  // rows 2, 15, 16
	AddressMismatch Reason = 5  // row 2
	EncapMismatch   Reason = 6  // row 2
	SADeleted       Reason = 7  // row 27
	SPIOutside      Reason = 8  // rows 23b, 31
	OffloadInactive Reason = 9  // row 3
	ProtocolOff     Reason = 10 // rows 3, 16, 31
	Fragment        Reason = 11 // rows 3, 31
	IPv4Options     Reason = 12 // rows 3, 31
	IPv6Extensions  Reason = 13 // rows 3, 31
	RoutingHeader   Reason = 14 // rows 3, 31
	Jumbogram       Reason = 15 // rows 3, 31
	NoAHESP         Reason = 16 // rows 21, 31
	IKE             Reason = 18 // row 4
	KeepAlive       Reason = 19 // row 4
	UDPTooShort     Reason = 20 // row 4
	UDPNoSA         Reason = 21 // row 4
	NoCombined      Reason = 22 // row 17
	InnerTunnelSA   Reason = 23 // row 29
	EncapTwice      Reason = 24 // row 31
	Dummy           Reason = 25 // row 32
	InnerNotIP      Reason = 26 // row 32
	InnerLength     Reason = 27 // row 32
	NoFamily        Reason = 28 // row 3
	NotTried        Reason = 29 // row 19, of the ESP record
	TooLong         Reason = 30 // row 3
)

// Reasons of frames whose IPsec was checked.
const (
	Verified         Reason = 32 // rows 5, 6, 11, 18, 33, 34
	AHICV            Reason = 33 // rows 7, 9, 12, 14, 19, 35
	ESPICV           Reason = 34 // rows 8, 10, 13, 14, 20, 35
	ProtocolMismatch Reason = 35 // row 22
	BundleMismatch   Reason = 36 // row 22
	IPLength         Reason = 37 // row 23 a
	UDPLength        Reason = 38 // row 23 a
	ESPLength        Reason = 39 // row 23 b
	AHLength         Reason = 40 // row 23 c
	PadLength        Reason = 41 // row 23 d
	OptionSyntax     Reason = 42 // row 23 e
	PadBytes         Reason = 43 // row 24
)

var texts = [...]reason.Text{
	NotIP:           {"not-ip", "the EtherType is neither IPv4 nor IPv6"},
	BadIPHeader:     {"bad-ip-header", "the IP header contradicts itself or the EtherType"},
	NoIPsec:         {"no-ipsec", "the packet carries no AH or ESP that can be reached"},
	NoSA:            {"no-sa", "no offloaded SA has this SPI"},
	AddressMismatch: {"address-mismatch", "an SA has this SPI, but another destination or source"},
	EncapMismatch:   {"encap-mismatch", "the SA with this SPI is UDP-encapsulated, the frame is not"},
	SADeleted:       {"sa-deleted", "the SA with this SPI has been deleted"},
	SPIOutside:      {"spi-outside", "the packet ends before its SPI does"},
	OffloadInactive: {"offload-inactive", "receive offload is not active"},
	ProtocolOff:     {"protocol-off", "offload of this portion's protocol is switched off"},
	Fragment:        {"fragment", "the packet that carries the IPsec header is a fragment"},
	IPv4Options:     {"ipv4-options", "the profile takes no IPv4 options"},
	IPv6Extensions:  {"ipv6-extension-headers", "the profile takes no IPv6 extension headers"},
	RoutingHeader:   {"routing-header", "a routing header has segments left, or is of a type that AH cannot predict"},
	Jumbogram:       {"jumbogram", "the IPv6 payload length is 0 (jumbogram)"},
	NoAHESP:         {"no-ah-esp", "the profile does not take AH and ESP on the same portion"},
	IKE:             {"ike", "UDP 4500 carries an IKE message (non-ESP marker)"},
	KeepAlive:       {"keep-alive", "UDP 4500 carries a NAT keep-alive"},
	UDPTooShort:     {"udp-too-short", "UDP 4500 carries fewer bytes than an ESP header"},
	UDPNoSA:         {"udp-no-sa", "no offloaded SA with this SPI is encapsulated in UDP"},
	NoCombined:      {"no-tunnel-transport", "the profile does not take a transport portion inside a tunnel"},
	InnerTunnelSA:   {"inner-tunnel-sa", "inside the tunnel lies a second tunnel, which is left to the transport"},
	EncapTwice:      {"encap-twice", "UDP-encapsulated IPsec inside a UDP-encapsulated tunnel is not supported"},
	Dummy:           {"dummy", "the tunnel carries a dummy packet (next header 59)"},
	InnerNotIP:      {"inner-not-ip", "the tunnel's payload is no IP packet of the kind announced"},
	NotTried:        {"not-tried", "the header in front of it failed, so it was not tried"},
	NoFamily:        {"no-family", "the profile does not take this IP version"},
	TooLong:         {"too-long", "the packet reaches beyond the 65535 bytes that offsets can count"},
	InnerLength:     {"inner-length", "the packet inside the tunnel is longer than the tunnel's payload"},

	Verified:         {"verified", "every IPsec portion checked is good"},
	AHICV:            {"ah-icv", "the AH ICV is wrong"},
	ESPICV:           {"esp-icv", "the ESP ICV is wrong"},
	ProtocolMismatch: {"protocol-mismatch", "the SA is for the other IPsec protocol than the one in the frame"},
	BundleMismatch:   {"bundle-mismatch", "the frame lacks the SA's bundle partner, or carries another one"},
	IPLength:         {"ip-length", "the IP length reaches beyond what was received"},
	UDPLength:        {"udp-length", "the UDP length reaches beyond the IP payload"},
	ESPLength:        {"esp-length", "the ESP payload is too short, or no multiple of the block"},
	AHLength:         {"ah-length", "the AH length does not fit the SA's ICV or the packet"},
	PadLength:        {"pad-length", "the ESP pad length is larger than the payload"},
	OptionSyntax:     {"option-syntax", "an option that AH must read does not parse"},
	PadBytes:         {"pad-bytes", "the ESP pad bytes are not 1, 2, 3 ..."},
}

var reasons = reason.New[Reason]("nic", texts[:])

// NumReasons is greater than every Reason.
const NumReasons = len(texts)

// Reasons lists all reasons by number.
func Reasons() []Reason { return reasons.All() }

// String gives the short name, as counters and JSON have it.
func (r Reason) String() string { return reasons.Name(r) }

// Sentence says it for people.
func (r Reason) Sentence() string { return reasons.Sentence(r) }

// Qualified gives the short name after "nic/", for where nothing else tells whose reason
// it is.
func (r Reason) Qualified() string { return reasons.Qualified(r) }

// Code is the frame's CryptoStatus if the work on that portion ends for this reason.
// Reasons that leave a portion alone give Success; the word's flags tell that apart from
// a verified frame. A wrong ICV in an unknown portion has no value of its own.
func (r Reason) Code(p Portion) Code {
	switch r {
	case AHICV:
		return p.pick(TunnelAHAuthFailed, TransportAHAuthFailed)
	case ESPICV:
		return p.pick(TunnelESPAuthFailed, TransportESPAuthFailed)
	case ProtocolMismatch, BundleMismatch:
		return InvalidProtocol
	case IPLength, UDPLength, ESPLength, AHLength, PadLength, OptionSyntax:
		return InvalidPacketSyntax
	case PadBytes:
		return GenericError
	}
	return Success
}

// pick gives the code of a portion, GenericError for an unknown one.
func (p Portion) pick(tunnel, transport Code) Code {
	switch p {
	case TunnelPortion:
		return tunnel
	case TransportPortion:
		return transport
	}
	return GenericError
}

// Failed reports whether a portion that ends for this reason was checked and found bad.
func (r Reason) Failed() bool { return r.Code(NoPortion) != Success }

// Authentic reports whether the portion's ICV was valid: for Verified, and for what only a
// valid ICV lets one see.
func (r Reason) Authentic() bool { return r == Verified || r == PadLength || r == PadBytes }

// OfIPsec reports whether a frame that ended for r has AH or ESP.
func (r Reason) OfIPsec() bool {
	switch r {
	case NotIP, BadIPHeader, NoIPsec, IKE, KeepAlive, UDPTooShort:
		return false
	}
	return true
}
