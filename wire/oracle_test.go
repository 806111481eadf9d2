package wire_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net/netip"
	"testing"

	"tapsec/wire"
)

// slowParse is ParseIP once more, written for the eye: it takes the packet
// apart front to back, with one slice per header and no arithmetic on offsets.
func slowParse(frame []byte, start int, version uint8) (p wire.Packet, err error) {
	b := frame[start:]
	if len(b) == 0 || b[0]>>4 != version {
		return p, wire.ErrVersion
	}
	p.Version, p.Start = version, start
	if version == 4 {
		return slow4(b, p)
	}
	return slow6(b, p)
}

func slow4(b []byte, p wire.Packet) (wire.Packet, error) {
	words := int(b[0] & 0x0f)
	if words < 5 || len(b) < 4*words {
		return p, wire.ErrHeader
	}
	total := int(b[2])*256 + int(b[3])
	if total < 4*words {
		return p, wire.ErrHeader
	}
	p.Proto, p.ProtoAt = b[9], p.Start+9
	p.Src, _ = netip.AddrFromSlice(b[12:16])
	p.Dst, _ = netip.AddrFromSlice(b[16:20])
	p.Header, p.End = p.Start+4*words, p.Start+total
	p.Reach = p.End
	if total > len(b) {
		p.Short, p.Reach = true, p.Start+len(b)
	}
	offset := int(b[6]&0x1f)*256 + int(b[7])
	p.Later = offset > 0
	p.Fragment = offset > 0 || b[6]&0x20 != 0
	p.Options = words > 5
	return p, nil
}

func slow6(b []byte, p wire.Packet) (wire.Packet, error) {
	if len(b) < 40 {
		return p, wire.ErrHeader
	}
	payload := int(b[4])*256 + int(b[5])
	p.Src, _ = netip.AddrFromSlice(b[8:24])
	p.Dst, _ = netip.AddrFromSlice(b[24:40])
	p.Proto, p.ProtoAt, p.Header = b[6], p.Start+6, p.Start+40
	rest := b[40:]
	switch {
	case payload == 0:
		p.Jumbo = true
		p.End = p.Header + len(rest)
	case payload > len(rest):
		p.Short = true
		p.End = p.Header + payload
	default:
		rest = rest[:payload]
		p.End = p.Header + payload
	}
	p.Reach = p.Header + len(rest)
	for first := true; !p.Later; first = false {
		if p.Proto == 0 && !first {
			return p, wire.ErrHeader
		}
		if p.Proto != 0 && p.Proto != 43 && p.Proto != 44 && p.Proto != 60 {
			break
		}
		if len(rest) < 8 {
			return p, wire.ErrHeader
		}
		n := 8 * (1 + int(rest[1]))
		if p.Proto == 44 {
			n = 8
		}
		if len(rest) < n {
			return p, wire.ErrHeader
		}
		header := rest[:n]
		rest = rest[n:]
		p.Extended = true
		if p.Proto == 43 {
			p.OddRoute = p.OddRoute || header[2] != 0
			p.Routed = p.Routed || header[3] != 0
		}
		if p.Proto == 44 {
			p.Fragment = true
			p.Later = (int(header[2])*256+int(header[3]))/8 != 0
		}
		p.Proto, p.ProtoAt = header[0], p.Header
		p.Header += n
	}
	return p, nil
}

// agree compares the parser with its slow twin.
func agree(t *testing.T, frame []byte, start int, version uint8) {
	t.Helper()
	got := wire.Packet{End: 1, Short: true, Fragment: true, Later: true, Options: true, Extended: true, Routed: true, OddRoute: true, Jumbo: true}
	gotErr := got.ParseIP(frame, start, len(frame), version) // of an earlier packet nothing is left
	want, wantErr := slowParse(frame, start, version)
	if !errors.Is(gotErr, wantErr) || gotErr == nil && got != want {
		t.Fatalf("% x\n got %+v, %v\nwant %+v, %v", frame[start:], got, gotErr, want, wantErr)
	}
}

// Whatever byte of a header comes to whatever value, and wherever a packet is cut off, the two agree.
func TestParseIPDamaged(t *testing.T) {
	for _, p := range packets(t) {
		for n := range len(p) {
			agree(t, p[:n], 0, p[0]>>4)
			agree(t, append(bytes.Clone(p), make([]byte, n)...), 0, p[0]>>4)
			agree(t, append(make([]byte, n), p...), n, p[0]>>4)
		}
		for i, was := range p {
			for v := range 256 {
				p[i] = byte(v)
				agree(t, p, 0, 4)
				agree(t, p, 0, 6)
			}
			p[i] = was
		}
	}
}

// slowEthernet steps over tags one after the other.
func slowEthernet(frame []byte) (uint16, int, bool) {
	rest := frame
	if len(rest) < 12 {
		return 0, 0, false
	}
	rest = rest[12:]
	for tags := 0; len(rest) >= 2; tags++ {
		etherType := binary.BigEndian.Uint16(rest)
		if etherType != 0x8100 && etherType != 0x88a8 {
			return etherType, len(frame) - len(rest) + 2, true
		}
		if tags == 2 || len(rest) < 4 {
			break
		}
		rest = rest[4:]
	}
	return 0, 0, false
}

func FuzzParseIP(f *testing.F) {
	for _, p := range packets(f) {
		f.Add(p, uint8(0))
		f.Add(append([]byte{1, 2, 3}, p...), uint8(3))
	}
	f.Fuzz(func(t *testing.T, frame []byte, start uint8) {
		if int(start) > len(frame) || len(frame) > 1<<16-1 {
			return
		}
		agree(t, frame, int(start), 4)
		agree(t, frame, int(start), 6)
	})
}

func FuzzEthernet(f *testing.F) {
	for _, p := range packets(f) {
		f.Add(append(append(make([]byte, 12), 8, 0), p...))
		f.Add(append(append(make([]byte, 12), 0x81, 0, 0, 1, 0x88, 0xa8, 0, 2, 0x86, 0xdd), p...))
	}
	f.Add(bytes.Repeat([]byte{0x81, 0}, 20))
	f.Fuzz(func(t *testing.T, frame []byte) {
		etherType, at, ok := wire.Ethernet(frame)
		wantType, wantAt, wantOK := slowEthernet(frame)
		if etherType != wantType || at != wantAt || ok != wantOK {
			t.Fatalf("% x: %#x at %d, %v; want %#x at %d, %v", frame, etherType, at, ok, wantType, wantAt, wantOK)
		}
	})
}

// Chains of extension headers in which a slip in the walk shows: what the first
// of two routing headers says, the reserved byte of a fragment header, and
// headers up to the packet's last byte (contract, Headers in detail).
func TestExtensionChains(t *testing.T) {
	route := func(kind, left byte) []byte { return []byte{0, 0, kind, left, 0, 0, 0, 0} }
	for _, c := range []struct {
		name                  string
		headers               [][]byte // each begins with the number that announces it
		cut                   int      // bytes that the payload length leaves out
		routed, odd, fragment bool
		err                   error
	}{
		{name: "left, none left", headers: [][]byte{append([]byte{43}, route(0, 1)...), append([]byte{43}, route(0, 0)...)}, routed: true},
		{name: "odd, type 0", headers: [][]byte{append([]byte{43}, route(4, 0)...), append([]byte{43}, route(0, 0)...)}, odd: true},
		{name: "reserved byte of a fragment", headers: [][]byte{{44, 0, 9, 0, 1, 0, 0, 0, 1}}, fragment: true},
		{name: "the last byte is missing", headers: [][]byte{{60, 0, 0, 1, 4, 0, 0, 0, 0}}, cut: 1, err: wire.ErrHeader},
		{name: "a long one", headers: [][]byte{append([]byte{60, 0, 1}, make([]byte, 14)...)}},
		{name: "a long one, cut", headers: [][]byte{append([]byte{60, 0, 1}, make([]byte, 14)...)}, cut: 1, err: wire.ErrHeader},
	} {
		b := append([]byte{0x60, 7: 64}, make([]byte, 32)...)
		next := &b[6]
		for _, h := range c.headers {
			*next = h[0]
			b = append(b, h[1:]...)
			next = &b[len(b)-len(h)+1]
		}
		*next = wire.ProtoNoNext
		binary.BigEndian.PutUint16(b[4:], uint16(len(b)-40-c.cut))
		got, err := wire.ParseIP(b, 0, len(b), 6)
		if err != c.err {
			t.Errorf("%s: %v, expected %v", c.name, err, c.err)
		}
		if c.err == nil && (got.Header != len(b) || got.Routed != c.routed || got.OddRoute != c.odd || got.Fragment != c.fragment) {
			t.Errorf("%s: %d bytes, %+v", c.name, len(b), got)
		}
		agree(t, b, 0, 6)
	}
}
