package capture

import (
	"encoding/binary"
	"fmt"
)

const etherLen = 14

// The link types that are understood, as www.tcpdump.org/linktypes.html
// numbers them.
const (
	linkNull     = 0   // BSD loopback, family in the capturing machine's byte order
	linkEthernet = 1   //
	linkPPP      = 9   //
	linkRawBSD   = 12  // raw IP; what some programs write for 101
	linkRawOpen  = 14  // the same on OpenBSD
	linkPPPHDLC  = 50  // PPP, or Cisco HDLC
	linkPPPoE    = 51  // from the PPPoE header on
	linkRaw      = 101 // raw IP
	linkCHDLC    = 104 // Cisco HDLC
	linkWiFi     = 105 // IEEE 802.11
	linkLoop     = 108 // BSD loopback, family in network byte order
	linkENC      = 109 // OpenBSD's and FreeBSD's enc0: family, SPI, flags
	linkSLL      = 113 // Linux "any", 16-byte header
	linkRadiotap = 127 // IEEE 802.11 after a radiotap header
	linkPPI      = 192 // Per-Packet Information, with a link type of its own for each frame
	linkPPPDir   = 204 // PPP after a byte that tells the direction
	linkIPv4     = 228
	linkIPv6     = 229
	linkNFLOG    = 239 // Linux netfilter log: 4 bytes, then attributes
	linkPKTAP    = 258 // Apple's, with a link type of its own for each frame
	linkSLL2     = 276 // Linux "any", 20-byte header
)

// otherLinks names common link types that are not understood.
var otherLinks = map[uint32]string{
	10: "FDDI", 120: "AIRONET", 119: "PRISM", 143: "DOCSIS", 163: "IEEE802_11_AVS", 147: "USER0", 148: "USER1", 149: "USER2", 150: "USER3",
	187: "BLUETOOTH_HCI_H4", 189: "USB_LINUX", 195: "IEEE802_15_4_WITHFCS", 197: "ERF", 201: "BLUETOOTH_HCI_H4_WITH_PHDR",
	220: "USB_LINUX_MMAPPED", 227: "CAN_SOCKETCAN", 249: "USBPCAP", 251: "BLUETOOTH_LE_LL", 252: "WIRESHARK_UPPER_PDU", 253: "NETLINK",
}

// linkTypeName is a link type's number, and its name if known.
func linkTypeName(link uint32) string {
	if name := otherLinks[link]; name != "" {
		return fmt.Sprintf("%d (%s)", link, name)
	}
	return fmt.Sprint(link)
}

// foreignLink is the error for a link type that is not understood.
type foreignLink uint32

func (f foreignLink) Error() string {
	return fmt.Sprintf("link type %s is not understood; expected Ethernet, raw IP, BSD loopback, Linux \"any\", PPP, Cisco HDLC, ENC, NFLOG, PKTAP, PPI or 802.11",
		linkTypeName(uint32(f)))
}

// understood returns an error for a link type that is not understood.
func understood(link uint32) error {
	switch link {
	case linkNull, linkEthernet, linkPPP, linkRawBSD, linkRawOpen, linkPPPHDLC, linkPPPoE, linkRaw, linkCHDLC, linkWiFi, linkLoop, linkENC, linkSLL,
		linkRadiotap, linkPPI, linkPPPDir, linkIPv4, linkIPv6, linkNFLOG, linkPKTAP, linkSLL2:
		return nil
	}
	return foreignLink(link)
}

const (
	etherIPv4 = 0x0800
	etherIPv6 = 0x86dd
	etherNone = 0 // the length field of an 802.3 frame, not an EtherType: not IP
)

// ethernet makes an Ethernet frame of a captured one, which lies in buf after room for an
// Ethernet header.
func ethernet(link uint32, buf []byte) ([]byte, error) {
	if link == linkPKTAP || link == linkPPI {
		n, inner := typed(link, buf[etherLen:])
		if inner == linkPKTAP || inner == linkPPI {
			return nil, foreignLink(inner) // only the outermost header is one
		}
		link, buf = inner, buf[n:]
	}
	if link == linkEthernet {
		return buf[etherLen:], nil
	}
	if err := understood(link); err != nil {
		return nil, err
	}
	n, etherType := linkHeader(link, buf[etherLen:])
	frame := buf[n:]
	clear(frame[:12])
	binary.BigEndian.PutUint16(frame[12:], etherType)
	return frame, nil
}

// typed gives the length of a PKTAP or PPI header and the link type of what follows. Nothing
// follows a header that was not captured whole.
func typed(link uint32, b []byte) (n int, inner uint32) {
	le := binary.LittleEndian
	switch {
	case link == linkPPI && len(b) >= 8: // version, flags, length, link type
		return min(int(le.Uint16(b[2:])), len(b)), le.Uint32(b[4:])
	case link == linkPKTAP && len(b) >= 12: // length, kind, link type
		return int(min(le.Uint32(b), uint32(len(b)))), le.Uint32(b[8:])
	}
	return len(b), linkRaw
}

// fixedHeaders are link headers of fixed length, in bytes.
var fixedHeaders = map[uint32]int{linkNull: 4, linkLoop: 4, linkSLL: 16, linkSLL2: 20, linkCHDLC: 4, linkENC: 12}

// linkHeader gives the length of the captured link header and the EtherType of what follows.
// Nothing follows a header that was not captured whole.
func linkHeader(link uint32, b []byte) (n int, etherType uint16) {
	if n = fixedHeaders[link]; len(b) < n {
		return len(b), etherNone
	}
	switch link {
	case linkIPv4:
		return 0, etherIPv4
	case linkIPv6:
		return 0, etherIPv6
	case linkRaw, linkRawBSD, linkRawOpen:
		return 0, ipVersion(b)
	case linkSLL:
		return n, binary.BigEndian.Uint16(b[14:])
	case linkSLL2:
		return n, binary.BigEndian.Uint16(b)
	case linkCHDLC:
		return n, binary.BigEndian.Uint16(b[2:])
	case linkPPP, linkPPPDir, linkPPPHDLC, linkPPPoE:
		return ppp(link, b)
	case linkNFLOG:
		return nflog(b)
	case linkWiFi:
		return wifi(b)
	case linkRadiotap:
		return radiotap(b)
	}
	return n, family(b)
}

func ipVersion(b []byte) uint16 {
	if len(b) > 0 {
		switch b[0] >> 4 {
		case 4:
			return etherIPv4
		case 6:
			return etherIPv6
		}
	}
	return etherNone
}

// family reads an address family below 256 in either byte order. AF_INET6 has
// a number of its own in each BSD and in Linux.
func family(b []byte) uint16 {
	switch b[0] | b[3] {
	case 2:
		return etherIPv4
	case 10, 24, 28, 30:
		return etherIPv6
	}
	return etherNone
}

const pppoeLen = 6 // RFC 2516 section 4: version and type, code, session, length

// ppp reads a PPP header (RFC 1661 section 2, RFC 1662 section 3.1): address and
// control, which may be left out, and a protocol of one byte or two.
func ppp(link uint32, b []byte) (n int, etherType uint16) {
	const hdlcUnicast, hdlcBroadcast = 0x0f, 0x8f
	switch {
	case link == linkPPPDir:
		n = 1
	case link == linkPPPoE && len(b) < pppoeLen:
		return len(b), etherNone
	case link == linkPPPoE && b[1] != 0: // discovery, or the end of a session
		return pppoeLen, etherNone
	case link == linkPPPoE:
		n = pppoeLen
	}
	if link == linkPPPHDLC && len(b) >= 4 && (b[0] == hdlcUnicast || b[0] == hdlcBroadcast) {
		return 4, binary.BigEndian.Uint16(b[2:])
	}
	if len(b) >= n+2 && b[n] == 0xff && b[n+1] == 3 {
		n += 2
	}
	protocol := uint16(0)
	switch {
	case len(b) > n && b[n]&1 != 0:
		protocol = uint16(b[n])
		n++
	case len(b) >= n+2:
		protocol = binary.BigEndian.Uint16(b[n:])
		n += 2
	default:
		return len(b), etherNone
	}
	switch protocol {
	case 0x21:
		return n, etherIPv4
	case 0x57:
		return n, etherIPv6
	}
	return n, etherNone
}

// nflog looks for the packet among the attributes of a netfilter log record:
// length and type, 16 bits each in the capturing machine's byte order, padded to
// 4 bytes.
func nflog(b []byte) (n int, etherType uint16) {
	const payload = 9 // NFULA_PAYLOAD
	if len(b) < 4 {
		return len(b), etherNone
	}
	kind := family([]byte{b[0], 0, 0, 0})
	for n = 4; len(b) >= n+4; {
		length, code := int(binary.LittleEndian.Uint16(b[n:])), binary.LittleEndian.Uint16(b[n+2:])
		if code&0xff == 0 && code != 0 { // the other byte order
			length, code = int(binary.BigEndian.Uint16(b[n:])), binary.BigEndian.Uint16(b[n+2:])
		}
		switch {
		case code == payload:
			return n + 4, kind
		case length < 4:
			return len(b), etherNone
		}
		n += (length + 3) &^ 3
	}
	return len(b), etherNone
}

// radiotap reads the header before an 802.11 frame, whose length is in the third and fourth
// byte.
func radiotap(b []byte) (n int, etherType uint16) {
	if len(b) < 4 || int(binary.LittleEndian.Uint16(b[2:])) > len(b) {
		return len(b), etherNone
	}
	n = int(binary.LittleEndian.Uint16(b[2:]))
	m, etherType := wifi(b[n:])
	return n + m, etherType
}

// wifi reads the header of an unencrypted 802.11 data frame, and LLC and SNAP headers. Other
// frames carry nothing that is looked at.
func wifi(b []byte) (n int, etherType uint16) {
	const (
		data, noData, qos             = 2, 4, 8
		toDS, fromDS, more, protected = 1, 2, 4, 0x40
		order                         = 0x80
	)
	if len(b) < 24 {
		return len(b), etherNone
	}
	kind, subtype, flags := b[0]>>2&3, b[0]>>4, b[1]
	if kind != data || subtype&noData != 0 || flags&(more|protected) != 0 || b[22]&0xf != 0 {
		return len(b), etherNone
	}
	n = 24
	if flags&(toDS|fromDS) == toDS|fromDS {
		n += 6 // a fourth address
	}
	if subtype&qos != 0 {
		n += 2
		if flags&order != 0 {
			n += 4
		}
	}
	if len(b) < n+8 || [3]byte(b[n:]) != [3]byte{0xaa, 0xaa, 3} {
		return len(b), etherNone
	}
	return n + 8, binary.BigEndian.Uint16(b[n+6:])
}
