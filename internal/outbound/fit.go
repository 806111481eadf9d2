package outbound

import (
	"math"

	"tapsec/esp"
	"tapsec/wire"
)

// Fit is the length in bytes of the longest IP packet that, once sealed, has at most mtu
// bytes and no more than the path of each SA takes. header is the length of its IP header
// with options and extension headers, which transport mode does not protect. If Fit is
// less than that, nothing fits.
func (s *Sealer) Fit(mtu, header int) int { return fit(s.layers, mtu, header) }

// fit asks the outer layers how long the result of the first one may be.
func fit(layers []*layer, mtu, header int) int {
	if len(layers) == 0 {
		return mtu
	}
	l := layers[0]
	if !l.wraps {
		return header + l.payload(min(fit(layers[1:], mtu, header), l.path)-header)
	}
	outer := wire.IPv4Len
	if l.sa.Dst.Is6() {
		outer = wire.IPv6Len
	}
	return l.payload(min(fit(layers[1:], mtu, outer), l.path) - outer)
}

// setPath sets how many bytes a packet of the SA may have on its way; 0 is no limit.
func (l *layer) setPath(mtu int) {
	if mtu == 0 {
		mtu = math.MaxInt
	}
	l.path = mtu
}

// path is how many bytes a packet may have on a wire of this MTU and beyond.
func (s *Sealer) path(mtu int) int {
	if n := len(s.layers); n > 0 {
		mtu = min(mtu, s.layers[n-1].path)
	}
	return mtu
}

// payload is how much the layer carries in room bytes after the IP header: for ESP whole
// blocks, less pad length and next header.
func (l *layer) payload(room int) int {
	if l.ah != nil {
		return room - l.ah.Len()
	}
	if l.sa.Encap {
		room -= wire.UDPLen
	}
	su := &l.sa.Suite
	return (room-esp.HeaderLen-su.IVLen-su.ICVLen)/su.Block*su.Block - espTrailerLen
}

const espTrailerLen = 2 // pad length and next header
