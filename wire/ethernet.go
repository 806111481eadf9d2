// Package wire says where things lie in a received frame: Ethernet, VLAN tags, IPv4 with
// options, IPv6 with extension headers, UDP. It is also the one place that takes opened
// headers off a packet.
//
// Everything works on offsets into the caller's frame; nothing is copied, kept
// or allocated. It knows the numbers of AH and ESP but not what is in them.
package wire

import "encoding/binary"

// EtherTypes that the parser knows.
const (
	EtherIPv4   = 0x0800
	EtherIPv6   = 0x86dd
	ether8021Q  = 0x8100
	ether8021AD = 0x88a8
)

const (
	macLen  = 12 // two MAC addresses
	tagLen  = 4
	maxTags = 2 // VLAN and QinQ
)

// Ethernet finds the EtherType after up to two VLAN tags (0x8100 or 0x88a8), and the
// offset of what follows it. ok is false for a frame that is too short or has more tags.
func Ethernet(frame []byte) (etherType uint16, payload int, ok bool) {
	for at := macLen; at <= macLen+maxTags*tagLen && at+2 <= len(frame); at += tagLen {
		etherType = binary.BigEndian.Uint16(frame[at:])
		if etherType != ether8021Q && etherType != ether8021AD {
			return etherType, at + 2, true
		}
	}
	return 0, 0, false
}

// MayHideIP reports whether a frame of that type may hold an IP packet that a later stack
// could see, but no policy here: PPPoE, MPLS, provider backbone (IEEE 802.1ah).
func MayHideIP(etherType uint16) bool {
	switch etherType {
	case 0x8864, 0x8847, 0x8848, 0x88e7:
		return true
	}
	return false
}
