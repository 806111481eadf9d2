// Package linux has tapsec judge frames that a real Linux kernel sealed, and that
// kernel judge frames of tapsec's: live, with user-mode Linux on the wire, and
// from recordings. These lie in captures/ beside the text of `ip xfrm state`;
// record.py made both, and says what the files hold. It is run by hand, on Debian
// as root, after make peers.
package linux

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"tapsec/test/interop"
	"tapsec/test/program"
)

// association is one SA that a flow was sent through.
type association struct {
	mode, protocol, spi string
	first               uint64 // its first sequence number
}

// datagram is one that the guest sent, and how. Each left it as one frame, if
// it was not fragmented.
type datagram struct {
	src, dst  netip.Addr
	port      uint16 // source's and destination's
	size      int    // of the payload
	sequence  uint64 // 0 for the first of its flow
	outermost []association
}

// payload is what record.py sends.
func (d *datagram) payload() []byte {
	b := make([]byte, d.size)
	for i := range b {
		b[i] = byte(int(d.port) + i)
	}
	return b
}

// flows reads what was sent, in the order of the frames.
func flows(t *testing.T, file string) (sent []datagram) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		var d datagram
		words := strings.SplitN(strings.TrimSpace(line), " ", 5)
		if _, err := fmt.Sscan(words[0], &d.port); err != nil {
			t.Fatal(err)
		}
		d.src, d.dst = netip.MustParseAddr(words[1]), netip.MustParseAddr(words[2])
		for _, one := range strings.Split(words[4], ", ") {
			var a association
			if _, err := fmt.Sscan(one, &a.mode, &a.protocol, &a.spi, &a.first); err != nil {
				t.Fatal(err)
			}
			d.outermost = append(d.outermost, a)
		}
		for i, size := range strings.Split(words[3], ",") {
			if _, err := fmt.Sscan(size, &d.size); err != nil {
				t.Fatal(err)
			}
			d.sequence = uint64(i)
			sent = append(sent, d)
		}
	}
	return sent
}

// verdict is the part of what replay --json says that is looked at.
type verdict struct {
	Frame          int
	Word           string
	CryptoDone     bool   `json:"crypto_done"`
	NextCryptoDone bool   `json:"next_crypto_done"`
	CryptoStatus   string `json:"crypto_status"`
	Reason         string
	Removed        int
	Records        []record
	delivered      []byte
}

type record struct {
	Portion, Protocol, SPI, Result string
	Seq                            uint64
	IPOffset                       int `json:"ip_offset"`
	IPsecOffset                    int `json:"ipsec_offset"`
	PayloadOffset                  int `json:"payload_offset"`
	PayloadLength                  int `json:"payload_length"`
	PadLength                      int `json:"pad_length"`
}

// replay runs the program over a capture. What it says on standard error is
// a count of frames and nothing else.
func replay(t *testing.T, keys, pcap, form string) (verdicts []verdict) {
	t.Helper()
	out := filepath.Join(t.TempDir(), "out.pcapng")
	cmd := program.Command("replay", "--json", "--form", form, "--annotate", "none", "-k", keys, "-o", out, pcap)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	said := slices.DeleteFunc(strings.Split(strings.TrimSpace(stderr.String()), "\n"), func(line string) bool {
		return strings.Contains(line, ": tfcpad cannot be held") // it is the sender's alone
	})
	if err != nil || len(said) != 1 {
		t.Fatalf("%v: %v\n%s", cmd.Args, err, &stderr)
	}
	delivered := interop.Frames(t, out)
	for d := json.NewDecoder(&stdout); ; {
		var v verdict
		if err := d.Decode(&v); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		if len(verdicts) == len(delivered) || v.Frame != len(verdicts)+1 {
			t.Fatalf("frame %d of %d follows frame %d", v.Frame, len(delivered), len(verdicts))
		}
		v.delivered = delivered[len(verdicts)]
		verdicts = append(verdicts, v)
	}
	if len(verdicts) != len(delivered) {
		t.Fatalf("%d verdicts on %d frames", len(verdicts), len(delivered))
	}
	return verdicts
}

func path(name, end string) string { return filepath.Join("captures", name+end) }

// each runs a test for every capture whose frames are to be good.
func each(t *testing.T, test func(t *testing.T, name, keys string)) {
	states, err := filepath.Glob(path("*", ".xfrm"))
	if err != nil || len(states) < 14 {
		t.Fatalf("%d captures: %v", len(states), err)
	}
	for _, keys := range states {
		title := strings.TrimSuffix(filepath.Base(keys), ".xfrm")
		name := strings.TrimSuffix(title, ".before")
		if name == "fragments" || name == "atomic" || name == "tunnel-in-tunnel" {
			continue // they have tests of their own
		}
		t.Run(title, func(t *testing.T) { test(t, name, keys) })
	}
}

// Every frame is good (contract rows 5, 6, 11, 18 and 33), is opened to what
// the guest sent, and is decapsulated to a whole packet.
func TestGood(t *testing.T) {
	each(t, func(t *testing.T, name, keys string) {
		sent, wire := flows(t, path(name, ".flows")), interop.Frames(t, path(name, ".pcap"))
		inPlace := replay(t, keys, path(name, ".pcap"), "inplace")
		decap := replay(t, keys, path(name, ".pcap"), "decap")
		if len(sent) != len(wire) || len(inPlace) != len(wire) || len(decap) != len(wire) {
			t.Fatalf("%d datagrams, %d frames, %d and %d verdicts", len(sent), len(wire), len(inPlace), len(decap))
		}
		for i, d := range sent {
			t.Run(fmt.Sprintf("%d/%d", d.port, d.size), func(t *testing.T) {
				d.good(t, &inPlace[i])
				d.good(t, &decap[i])
				opened(t, wire[i], &inPlace[i], d.arrived(t, decap[i].delivered))
			})
		}
	})
}

// portions gives the portion of each SA: a transport-mode AH and the ESP
// directly behind it are one, called by the ESP SA's mode.
func (d *datagram) portions() (names []string, count int) {
	for i, a := range d.outermost {
		name := a.mode
		if i+1 < len(d.outermost) && a.protocol == "ah" && a.mode == "transport" && d.outermost[i+1].protocol == "esp" {
			name = d.outermost[i+1].mode
		} else {
			count++
		}
		names = append(names, name)
	}
	return names, count
}

// good holds a verdict against what the flow went through.
func (d *datagram) good(t *testing.T, v *verdict) {
	t.Helper()
	names, count := d.portions()
	word := map[int]string{1: "0x00000002", 2: "0x00000006"}[count]
	if v.Word != word || !v.CryptoDone || v.NextCryptoDone != (count == 2) || v.CryptoStatus != "CRYPTO_SUCCESS" || v.Reason != "verified" {
		t.Fatalf("%s %s %s, want %s verified: %+v", v.Word, v.CryptoStatus, v.Reason, word, v.Records)
	}
	if len(v.Records) != len(d.outermost) {
		t.Fatalf("%d records for %d SAs", len(v.Records), len(d.outermost))
	}
	for i, a := range d.outermost {
		r := v.Records[i]
		got := fmt.Sprint(r.Portion, r.Protocol, r.SPI, r.Seq, r.Result)
		if want := fmt.Sprint(names[i], a.protocol, a.spi, a.first+d.sequence, "icv-valid"); got != want {
			t.Errorf("record %d: %s, want %s", i+1, got, want)
		}
	}
}

// arrived parses a decapsulated frame, holds it against the datagram, and
// returns its UDP header and payload.
func (d *datagram) arrived(t *testing.T, frame []byte) []byte {
	t.Helper()
	const ethernet = 14
	p := gopacket.NewPacket(frame, layers.LayerTypeEthernet, gopacket.NoCopy)
	udp, _ := p.Layer(layers.LayerTypeUDP).(*layers.UDP)
	if udp == nil {
		t.Fatalf("no datagram: %v", p)
	}
	var src, dst netip.Addr
	var end int
	switch ip := p.NetworkLayer().(type) {
	case *layers.IPv4:
		src, _ = netip.AddrFromSlice(ip.SrcIP)
		dst, _ = netip.AddrFromSlice(ip.DstIP)
		end = int(ip.Length)
		if sum(ip.Contents) != 0xffff {
			t.Error("the IP header's checksum is wrong")
		}
	case *layers.IPv6:
		src, _ = netip.AddrFromSlice(ip.SrcIP)
		dst, _ = netip.AddrFromSlice(ip.DstIP)
		end = len(ip.Contents) + int(ip.Length)
	}
	if src != d.src || dst != d.dst || uint16(udp.SrcPort) != d.port || uint16(udp.DstPort) != d.port || !bytes.Equal(udp.Payload, d.payload()) {
		t.Errorf("%s:%d to %s:%d: %x", src, udp.SrcPort, dst, udp.DstPort, udp.Payload)
	}
	whole := slices.Concat(udp.Contents, udp.Payload)
	pseudo := slices.Concat(src.AsSlice(), dst.AsSlice(), binary.BigEndian.AppendUint16(nil, udp.Length), []byte{0, 17})
	if udp.Checksum == 0 || sum(slices.Concat(pseudo, whole)) != 0xffff {
		t.Error("the UDP checksum is wrong")
	}
	if at := bytes.Index(frame, whole); at+len(whole) != ethernet+tags(p)+end || at+len(whole) != len(frame) {
		t.Errorf("a frame of %d bytes, a datagram of %d at %d, IP length %d", len(frame), len(whole), at, end)
	}
	return whole
}

// tags is the length of a packet's VLAN tags in bytes.
func tags(p gopacket.Packet) (n int) {
	for _, l := range p.Layers() {
		if l.LayerType() == layers.LayerTypeDot1Q {
			n += len(l.LayerContents())
		}
	}
	return n
}

// sum is the one's complement sum of 16-bit words (RFC 1071); over what holds a
// right checksum it is 0xffff.
func sum(b []byte) uint16 {
	var s uint32
	for i, c := range b {
		s += uint32(c) << (8 * (1 - i%2))
	}
	for s > 0xffff {
		s = s&0xffff + s>>16
	}
	return uint16(s)
}

// opened tells whether the datagram can be read where the innermost record
// says, and whether nothing was written to but what ESP encrypts.
func opened(t *testing.T, wire []byte, v *verdict, datagram []byte) {
	t.Helper()
	last := v.Records[len(v.Records)-1]
	if !bytes.Contains(v.delivered[last.PayloadOffset:][:last.PayloadLength], datagram) {
		t.Error("the datagram is not where the last record says")
	}
	want := bytes.Clone(wire)
	for _, r := range v.Records {
		if r.Protocol == "esp" {
			const trailer = 2 // pad length and next header
			copy(want[r.PayloadOffset:][:r.PayloadLength+r.PadLength+trailer], v.delivered[r.PayloadOffset:])
		}
	}
	if !bytes.Equal(v.delivered, want) {
		t.Errorf("delivered\n%x\nwant\n%x", v.delivered, want)
	}
}

// The captures hold what Linux is known to do: bytes left over in the padding of
// an AH, which its ICV covers, and packets filled up for traffic flow
// confidentiality (RFC 4303 section 2.7).
func TestPeculiarities(t *testing.T) {
	const shortest, padding = 24, 4 // of an AH, with an ICV of 12 bytes; longer ones are padded
	wire, stale := interop.Frames(t, path("ah", ".pcap")), 0
	for i, v := range replay(t, path("ah", ".xfrm"), path("ah", ".pcap"), "inplace") {
		r := v.Records[0]
		pad := wire[i][r.PayloadOffset-padding : r.PayloadOffset]
		if r.PayloadOffset-r.IPsecOffset > shortest && !bytes.Equal(pad, make([]byte, padding)) {
			stale++
		}
	}
	if stale == 0 {
		t.Error("no AH has anything but zeros in its padding")
	}
	for _, v := range replay(t, path("tfc", ".xfrm"), path("tfc", ".pcap"), "inplace") {
		if n := v.Records[0].PayloadLength; n < 256 {
			t.Errorf("frame %d was filled up to %d bytes, want 256 or more", v.Frame, n)
		}
	}
}

// A byte that the outermost ICV covers is changed in each frame. None is good
// any more; the status names the outermost portion and its first protocol
// (contract rows 7-10, 14 and 19), and the frame comes back as it went in.
func TestTampered(t *testing.T) {
	each(t, func(t *testing.T, name, keys string) {
		sent := flows(t, path(name, ".flows"))
		good := replay(t, keys, path(name, ".pcap"), "inplace")
		for _, spread := range []int{1, 31, 7919} {
			file := filepath.Join(t.TempDir(), "tampered.pcap")
			tamper(t, path(name, ".pcap"), file, good, spread)
			wire := interop.Frames(t, file)
			for i, v := range replay(t, keys, file, "inplace") {
				d := &sent[i]
				status := strings.ToUpper(fmt.Sprintf("CRYPTO_%s_%s_AUTH_FAILED", d.failed(wire[i], good[i]), d.outermost[0].protocol))
				if v.CryptoStatus != status || !v.CryptoDone || v.NextCryptoDone || v.Records[0].Result != "failed" {
					t.Errorf("%d/%d: %s %s, want %s", d.port, d.size, v.Word, v.CryptoStatus, status)
				}
				if !bytes.Equal(v.delivered, wire[i]) {
					t.Errorf("%d/%d: delivered\n%x\nwant\n%x", d.port, d.size, v.delivered, wire[i])
				}
			}
		}
	})
}

// failed is the portion that a status names after tampering. An AH is called by
// the mode of the ESP SA behind it only while that ESP's SPI can be read.
func (d *datagram) failed(frame []byte, good verdict) string {
	names, _ := d.portions()
	if own := d.outermost[0].mode; names[0] != own {
		esp := good.Records[1]
		if fmt.Sprintf("0x%x", frame[esp.IPsecOffset:][:4]) != esp.SPI {
			return own
		}
	}
	return names[0]
}

// tamper copies a capture with one byte changed in each frame, behind the SPI
// of its first IPsec header; spread picks another byte in each.
func tamper(t *testing.T, from, to string, good []verdict, spread int) {
	t.Helper()
	const fileHeader, frameHeader, lengthAt = 24, 16, 8
	file, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	rest := file[fileHeader:]
	for i, v := range good {
		length := int(binary.LittleEndian.Uint32(rest[lengthAt:]))
		frame := rest[frameHeader:][:length]
		first := v.Records[0]
		covered := frame[first.IPsecOffset+map[string]int{"esp": 4, "ah": 8}[first.Protocol]:]
		covered[(i+1)*spread%len(covered)] ^= 1 << (i % 8)
		rest = rest[frameHeader+length:]
	}
	if err := os.WriteFile(to, file, 0o600); err != nil {
		t.Fatal(err)
	}
}

// Fragments are left alone, IPv6 ones that hold a whole packet too (contract
// row 3).
func TestFragments(t *testing.T) {
	for _, name := range []string{"fragments", "atomic"} {
		wire := interop.Frames(t, path(name, ".pcap"))
		if len(wire) == 0 {
			t.Fatal("no frames")
		}
		for i, v := range replay(t, path(name, ".xfrm"), path(name, ".pcap"), "inplace") {
			if v.Word != "0x00000000" || v.Reason != "fragment" || !bytes.Equal(v.delivered, wire[i]) {
				t.Errorf("%s frame %d: %s %s", name, v.Frame, v.Word, v.Reason)
			}
		}
	}
}

// Of a tunnel in a tunnel the outer one is checked (contract row 29). Taken off,
// it leaves a frame whose outermost tunnel is the other.
func TestTunnelInTunnel(t *testing.T) {
	const name = "tunnel-in-tunnel"
	sent := flows(t, path(name, ".flows"))
	first := replay(t, path(name, ".xfrm"), path(name, ".pcap"), "decap")
	file := filepath.Join(t.TempDir(), "inner.pcap")
	writePcap(t, file, first)
	second := replay(t, path(name, ".xfrm"), file, "decap")
	if len(first) != len(sent) || len(second) != len(sent) {
		t.Fatalf("%d datagrams, %d and %d verdicts", len(sent), len(first), len(second))
	}
	for i, d := range sent {
		if v := first[i]; v.Word != "0x00000002" || v.Reason != "inner-tunnel-sa" || v.Removed != 1 || v.Records[0].SPI != d.outermost[0].spi {
			t.Errorf("frame %d: %s %s", v.Frame, v.Word, v.Reason)
		}
		d.outermost = d.outermost[1:]
		d.good(t, &second[i])
		d.arrived(t, second[i].delivered)
	}
}

// writePcap makes a capture of delivered frames.
func writePcap(t *testing.T, file string, verdicts []verdict) {
	t.Helper()
	le := binary.LittleEndian
	out := le.AppendUint32(nil, 0xa1b2c3d4)
	out = append(out, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0)
	out = le.AppendUint32(le.AppendUint32(out, 1<<16), 1) // Ethernet
	for _, v := range verdicts {
		n := uint32(len(v.delivered))
		out = append(le.AppendUint32(le.AppendUint32(append(out, 0, 0, 0, 0, 0, 0, 0, 0), n), n), v.delivered...)
	}
	if err := os.WriteFile(file, out, 0o600); err != nil {
		t.Fatal(err)
	}
}
