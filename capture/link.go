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
	linkRawBSD   = 12  // raw IP; what some programs write for 101
	linkRaw      = 101 // raw IP
	linkLoop     = 108 // BSD loopback, family in network byte order
	linkSLL      = 113 // Linux "any", 16-byte header
	linkIPv4     = 228
	linkIPv6     = 229
	linkSLL2     = 276 // Linux "any", 20-byte header
)

const (
	etherIPv4 = 0x0800
	etherIPv6 = 0x86dd
	etherNone = 0 // no EtherType, but the length of an 802.3 frame: not IP
)

// ethernet makes an Ethernet frame of what was captured, which lies in buf
// behind room for an Ethernet header.
func ethernet(link uint32, buf []byte) ([]byte, error) {
	if link == linkEthernet {
		return buf[etherLen:], nil
	}
	n, etherType, err := linkHeader(link, buf[etherLen:])
	if err != nil {
		return nil, err
	}
	frame := buf[n:]
	clear(frame[:12])
	binary.BigEndian.PutUint16(frame[12:], etherType)
	return frame, nil
}

// linkHeader gives the length of the captured link header and the EtherType of
// what follows. A header that was not captured whole is followed by nothing.
func linkHeader(link uint32, b []byte) (n int, etherType uint16, err error) {
	switch link {
	case linkIPv4:
		return 0, etherIPv4, nil
	case linkIPv6:
		return 0, etherIPv6, nil
	case linkRaw, linkRawBSD:
		return 0, ipVersion(b), nil
	case linkNull, linkLoop:
		n = 4
	case linkSLL:
		n = 16
	case linkSLL2:
		n = 20
	default:
		return 0, 0, fmt.Errorf("link type %d is none of Ethernet, raw IP, BSD loopback and Linux \"any\"", link)
	}
	if len(b) < n {
		return len(b), etherNone, nil
	}
	switch link {
	case linkSLL:
		return n, binary.BigEndian.Uint16(b[14:]), nil
	case linkSLL2:
		return n, binary.BigEndian.Uint16(b), nil
	}
	return n, family(b), nil
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
