package ah

import "tapsec/wire"

// zeroMutable zeroes what may change on the way (RFC 4302 section 3.3.3.1) in a copy of
// the headers from the IP header to the AH. It reports false for options that do not
// parse.
func zeroMutable(b []byte, version uint8) bool {
	if version == 4 {
		return zeroIPv4(b)
	}
	return zeroIPv6(b)
}

// zeroIPv4 zeroes TOS, flags and fragment offset, TTL, checksum, and every
// option that is not immutable.
func zeroIPv4(b []byte) bool {
	b[1] = 0
	b[6], b[7] = 0, 0
	b[8] = 0
	b[10], b[11] = 0, 0
	for o := b[20 : int(b[0]&15)*4]; len(o) > 0; {
		if o[0] == 0 { // end of options: what follows is padding
			return true
		}
		n := 1
		if o[0] != 1 {
			if len(o) < 2 || o[1] < 2 || int(o[1]) > len(o) {
				return false
			}
			n = int(o[1])
		}
		if !immutableIPv4(o[0]) {
			clear(o[:n])
		}
		o = o[n:]
	}
	return true
}

// immutableIPv4 names the options that AH covers, beside the end: no-op, security,
// extended security, commercial security, router alert, sender directed
// multi-destination delivery (RFC 4302 appendix A1).
func immutableIPv4(option byte) bool {
	switch option {
	case 1, 130, 133, 134, 148, 149:
		return true
	}
	return false
}

// zeroIPv6 zeroes traffic class, flow label, hop limit, and the data of options
// that may change en route. Routing headers stay: only type 0 with no segment left gets
// here.
func zeroIPv6(b []byte) bool {
	b[0], b[1], b[2], b[3] = 0x60, 0, 0, 0
	b[7] = 0
	next := b[6]
	for h := b[40 : len(b)-FixedLen]; len(h) >= 8; {
		n := 8 + int(h[1])*8
		if next != wire.ProtoRouting && !zeroOptions(h[2:n]) {
			return false
		}
		next, h = h[0], h[n:]
	}
	return true
}

// zeroOptions walks the options of a hop-by-hop or destination options header
// (RFC 8200 section 4.2).
func zeroOptions(o []byte) bool {
	const pad1, mayChange = 0, 0x20
	for len(o) > 0 {
		if o[0] == pad1 {
			o = o[1:]
			continue
		}
		if len(o) < 2 || 2+int(o[1]) > len(o) {
			return false
		}
		data := o[2 : 2+int(o[1])]
		if o[0]&mayChange != 0 {
			clear(data)
		}
		o = o[2+len(data):]
	}
	return true
}
