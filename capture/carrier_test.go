package capture

import (
	"bytes"
	"encoding/binary"
	"io"
	"slices"
	"strings"
	"testing"
)

// carried are frames with an ESP packet in every carrier, by what Unwrap calls it.
func carried(packet []byte) map[string][]byte {
	be := binary.BigEndian
	u16 := func(v ...uint16) (b []byte) {
		for _, v := range v {
			b = be.AppendUint16(b, v)
		}
		return b
	}
	ether := func(etherType uint16, parts ...[]byte) []byte {
		return slices.Concat(append([][]byte{bytes.Repeat([]byte{2}, 12), u16(etherType)}, parts...)...)
	}
	ip := func(proto byte, parts ...[]byte) []byte {
		payload := slices.Concat(parts...)
		h := append([]byte{0x45, 0}, u16(uint16(20+len(payload)), 0, 0, 0x4000|uint16(proto))...)
		h[6], h[7], h[8], h[9] = 0, 0, 64, proto
		return slices.Concat(h, []byte{0, 0, 203, 0, 113, 1, 203, 0, 113, 2}, payload)
	}
	udp := func(port uint16, parts ...[]byte) []byte {
		payload := slices.Concat(parts...)
		return ip(17, u16(40000, port, uint16(8+len(payload)), 0), payload)
	}
	inside := ether(etherIPv4, packet)
	return map[string][]byte{
		"VLAN tags":         ether(0x88a8, u16(5, 0x8100, 6, 0x8100, 7, etherIPv4), packet),
		"PPPoE":             ether(0x8864, u16(0x1100, 1, uint16(2+len(packet)), 0x21), packet),
		"MPLS":              ether(0x8847, []byte{0, 1, 0, 64, 0, 1, 1, 64}, packet),
		"LLC":               ether(uint16(8+len(packet)), []byte{0xaa, 0xaa, 3, 0, 0, 0}, u16(etherIPv4), packet),
		"IP in IP":          ether(etherIPv4, ip(4, packet)),
		"GRE":               ether(etherIPv4, ip(47, u16(0x2000, etherIPv4, 0, 9), packet)),
		"GRE, ERSPAN":       ether(etherIPv4, ip(47, u16(0x1000, 0x88be, 0, 1), make([]byte, 8), inside)),
		"VXLAN":             ether(etherIPv4, udp(4789, []byte{8, 0, 0, 0, 0, 0, 1, 0}, inside)),
		"VXLAN on 8472":     ether(etherIPv4, udp(8472, []byte{8, 0, 0, 0, 0, 0, 1, 0}, inside)),
		"Geneve":            ether(etherIPv4, udp(6081, u16(0x0100, 0x6558, 0, 0x100), make([]byte, 4), inside)),
		"GTP-U":             ether(etherIPv4, udp(2152, u16(0x30ff, uint16(len(packet)), 0, 1), packet)),
		"PPPoE, VXLAN":      ether(0x8864, u16(0x1100, 1, uint16(2+36+len(inside)), 0x21), udp(4789, []byte{8, 0, 0, 0, 0, 0, 1, 0}, inside)),
		"":                  ether(0x8100, u16(5, 0x88a8, 6, etherIPv4), packet),
		"\x00in its tunnel": ether(etherIPv4, ip(50, packet, packet)), // what ESP carries stays in it
	}
}

// An IPsec packet is taken out of every carrier, whole and no more than it; what a NIC reaches
// stays as it is.
func TestUnwrap(t *testing.T) {
	esp := slices.Concat([]byte{0x45, 0, 0, 60, 0, 0, 0, 0, 64, 50, 0, 0, 192, 0, 2, 1, 192, 0, 2, 2, 0, 0, 0x10, 1, 0, 0, 0, 1}, bytes.Repeat([]byte{9}, 32))
	encap := slices.Concat([]byte{0x45, 0, 0, 60, 0, 0, 0, 0, 64, 17, 0, 0, 192, 0, 2, 1, 192, 0, 2, 2, 0x11, 0x94, 0x30, 0x39, 0, 40, 0, 0}, bytes.Repeat([]byte{9}, 32))
	six := slices.Concat([]byte{0x60, 0, 0, 0, 0, 40, 51, 64}, make([]byte, 32), []byte{4, 4, 0, 0, 0, 0, 0x10, 1, 0, 0, 0, 1}, make([]byte, 28))
	for name, packet := range map[string][]byte{"ESP": esp, "ESP in UDP": encap, "AH": six} {
		whole := slices.Concat(make([]byte, 12), []byte{8, 0}, packet)
		if name == "AH" {
			whole[12], whole[13] = 0x86, 0xdd
		}
		for want, frame := range carried(packet) {
			if name == "AH" && want != "VXLAN" && want != "GRE, ERSPAN" { // those whose header names the version
				continue
			}
			if name == "AH" {
				binary.BigEndian.PutUint16(frame[bytes.LastIndex(frame, packet)-2:], etherIPv6)
			}
			was := bytes.Clone(frame)
			inner, got := Unwrap(frame)
			stays := want == "" || want[0] == 0
			switch {
			case stays && (got != "" || !bytes.Equal(inner, was)):
				t.Errorf("%s, %q: taken out of %q", name, want, got)
			case !stays && (got != strings.TrimSuffix(want, " on 8472") || !bytes.Equal(inner, whole)):
				t.Errorf("%s in %s: found %q\n%x", name, want, got, inner)
			}
		}
	}
}

// A Reader opens frames, and says what it took off; numbers and times stay.
func TestReaderOpens(t *testing.T) {
	packet := slices.Concat([]byte{0x45, 0, 0, 60, 0, 0, 0, 0, 64, 50, 0, 0, 192, 0, 2, 1, 192, 0, 2, 2}, make([]byte, 40))
	all := carried(packet)
	r, err := NewReader(bytes.NewReader(pcapFile(binary.LittleEndian, 0xa1b2c3d4, linkEthernet, all["PPPoE"], all[""])))
	if err != nil {
		t.Fatal(err)
	}
	r.Open(Unwrap)
	for n, want := range []string{"PPPoE", ""} {
		frame, info, err := r.Next()
		if err != nil || info.Carrier != want || info.Number != n+1 || info.Missing != 3 || !bytes.HasSuffix(frame, packet) {
			t.Errorf("frame %d: %+v, %v", n+1, info, err)
		}
	}
	if _, _, err := r.Next(); err != io.EOF {
		t.Error(err)
	}
}

// FuzzUnwrap: whatever comes, what is taken out is the frame's end behind an Ethernet header,
// and has nothing to be taken out of.
func FuzzUnwrap(f *testing.F) {
	for _, frame := range carried(slices.Concat([]byte{0x45, 0, 0, 60, 0, 0, 0, 0, 64, 50}, make([]byte, 50))) {
		f.Add(frame)
	}
	f.Fuzz(func(t *testing.T, frame []byte) {
		was := bytes.Clone(frame)
		inner, what := Unwrap(frame)
		if what == "" && !bytes.Equal(inner, was) || len(inner) > len(was) {
			t.Fatalf("%x became %x", was, inner)
		}
		if what != "" && !bytes.HasSuffix(was, inner[etherLen:]) {
			t.Fatalf("out of %s: %x became %x", what, was, inner)
		}
		if _, again := Unwrap(inner); what != "" && again != "" {
			t.Fatalf("out of %s, and out of %s", what, again)
		}
	})
}
