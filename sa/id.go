package sa

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"hash/maphash"
	"net/netip"
	"slices"
	"strconv"
)

// ID identifies an SA within a table: protocol, SPI and addresses; an invalid address (the
// zero Addr) stands for any. In JSON it is {"protocol": "esp", "spi": "0x00001001",
// "dst": "192.0.2.1", "src": ""}.
type ID struct {
	Protocol Protocol   `json:"protocol"`
	SPI      SPI        `json:"spi"`
	Dst      netip.Addr `json:"dst"`
	Src      netip.Addr `json:"src"`
}

// ID is the identity of the SA.
func (s *SA) ID() ID { return ID{s.Protocol, SPI(s.SPI), s.Dst, s.Src} }

// Hash is the same for equal identities. It leaves zones out, which SAs do not have.
func (id ID) Hash(seed maphash.Seed) uint64 {
	var b [39]byte // the lengths of the addresses tell IPv4 from IPv6, and from none
	b[0], b[1], b[2] = byte(id.Protocol), byte(id.Dst.BitLen()), byte(id.Src.BitLen())
	binary.BigEndian.PutUint32(b[3:], uint32(id.SPI))
	dst, src := id.Dst.As16(), id.Src.As16()
	copy(b[7:], dst[:])
	copy(b[23:], src[:])
	return maphash.Bytes(seed, b[:])
}

// Repeat reports whether two of these SAs have the same hash, which takes little memory to find
// out. Then they may agree in more.
func Repeat(sas []*SA, hash func(*SA) uint64) bool {
	all := make([]uint64, len(sas))
	for i, s := range sas {
		all[i] = hash(s)
	}
	slices.Sort(all)
	return len(slices.Compact(all)) < len(sas)
}

// String gives all fields that are set.
func (id ID) String() string {
	text := id.Protocol.String() + " SPI " + id.SPI.String()
	if id.Dst.IsValid() {
		text += " to " + id.Dst.String()
	}
	if id.Src.IsValid() {
		text += " from " + id.Src.String()
	}
	return text
}

// SPI is a Security Parameters Index that reads and prints as people write it.
type SPI uint32

// String gives 0x and eight hexadecimal digits.
func (s SPI) String() string {
	var digits [8]byte
	hex.Encode(digits[:], binary.BigEndian.AppendUint32(nil, uint32(s)))
	return "0x" + string(digits[:])
}

// MarshalText writes String.
func (s SPI) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText reads decimal digits, or hexadecimal ones after 0x.
func (s *SPI) UnmarshalText(b []byte) error {
	n, err := strconv.ParseUint(string(b), 0, 32)
	if err != nil {
		return fmt.Errorf("expected an SPI of 32 bits, as 4097 or 0x1001, found %s", Quote(string(b)))
	}
	*s = SPI(n)
	return nil
}
