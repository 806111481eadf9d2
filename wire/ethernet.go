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

// IPVersion is the version of IP that an EtherType announces, 0 for any other EtherType.
func IPVersion(etherType uint16) uint8 {
	switch etherType {
	case EtherIPv4:
		return 4
	case EtherIPv6:
		return 6
	}
	return 0
}

// EtherTypeOf is the EtherType of a version of IP, 4 or 6.
func EtherTypeOf(version uint8) uint16 {
	if version == 6 {
		return EtherIPv6
	}
	return EtherIPv4
}

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

// MayHideIP reports whether a frame of that type, after which come these bytes, may hold
// an IP packet that a later stack could see, but no policy here.
func MayHideIP(etherType uint16, after []byte) bool {
	switch etherType {
	case 0x8847, 0x8848, // MPLS
		0x8864, 0x880b, // PPP over Ethernet, PPP
		0x9100, 0x9200, 0x9300, // VLAN tags from before IEEE 802.1ad
		0x88e7, 0x893f, 0x8926, // provider backbone (IEEE 802.1ah), E-tag (802.1BR), VN-tag
		0x88e5, 0x892f, // MACsec (802.1AE), whose text may be clear, HSR (IEC 62439-3)
		0x22f3, 0x894f, 0x4305: // TRILL (RFC 6325), NSH (RFC 8300), B.A.T.M.A.N.
		return true
	}
	return etherType < 0x600 && llcMayHideIP(after)
}

// llcMayHideIP is MayHideIP for a frame that has its length instead of a type (IEEE
// 802.3): IP may follow LLC directly, or SNAP (RFC 1042), which Windows takes as well.
func llcMayHideIP(llc []byte) bool {
	if len(llc) == 0 {
		return false
	}
	const snap, ip = 0xaa, 0x06
	switch {
	case llc[0]&^1 == ip:
		return true
	case llc[0]&^1 != snap || len(llc) < 6:
		return false
	}
	oui := [3]byte(llc[3:])
	return oui == [3]byte{} || oui == [3]byte{0, 0, 0xf8} // the latter is IEEE 802.1H
}
