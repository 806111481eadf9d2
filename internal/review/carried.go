package review

import (
	"bytes"
	"fmt"
	"io"
	"slices"
	"strings"

	"tapsec/capture"
	"tapsec/wire"
)

// carried notices IPsec that other layers carry past a NIC. It looks at the first frames
// alone, and changes none.
type carried struct {
	seen, tried, found int
	carriers           []string
}

// So many frames are looked at, and so many of them taken apart, which takes microseconds.
const (
	mostSeen  = 1 << 16
	mostTried = 1000
)

// look is for capture.Reader.Open.
func (c *carried) look(frame []byte) ([]byte, string) {
	if c.seen == mostSeen || c.tried == mostTried {
		return frame, ""
	}
	if c.seen++; mayCarry(frame) {
		c.tried++
		if _, names := capture.Unwrap(bytes.Clone(frame)); names != "" {
			if c.found++; !slices.Contains(c.carriers, names) {
				c.carriers = append(c.carriers, names)
			}
		}
	}
	return frame, ""
}

// mayCarry reports whether neither the EtherType nor the IP protocol is one that carries
// nothing, or that a NIC opens.
func mayCarry(frame []byte) bool {
	etherType, at, ok := wire.Ethernet(frame)
	version := wire.IPVersion(etherType)
	if !ok || version == 0 {
		return true
	}
	p, err := wire.ParseIP(frame, at, len(frame), version)
	if err != nil || p.Later {
		return false
	}
	switch p.Proto {
	case wire.ProtoESP, wire.ProtoAH, wire.ProtoTCP, wire.ProtoICMP, wire.ProtoICMPv6:
		return false
	case wire.ProtoUDP:
		src, dst, _, ok := wire.UDP(frame[p.Header:p.Reach])
		return ok && !wire.Encapsulated(src, dst)
	}
	return true
}

// say names the carriers.
func (c *carried) say(w io.Writer) {
	if c.found > 0 {
		fmt.Fprintf(w, "note: IPsec in %s is left alone, as by a NIC; --carriers takes it out\n", strings.Join(c.carriers, "; "))
	}
}
