package capture

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"github.com/klauspost/compress/zstd"

	"tapsec/status"
)

type read struct {
	Info
	frame []byte
}

// readAll reads to the end, or to the error that is not io.EOF.
func readAll(in io.Reader) (all []read, err error) {
	r, err := NewReader(in)
	if err != nil {
		return nil, err
	}
	for {
		frame, info, err := r.Next()
		if err == io.EOF {
			return all, nil
		}
		if err != nil {
			return all, err
		}
		if cap(frame)-len(frame) < status.Tailroom {
			return all, fmt.Errorf("frame %d has room for %d bytes behind it", info.Number, cap(frame)-len(frame))
		}
		all = append(all, read{info, bytes.Clone(frame)})
	}
}

func fixture(t testing.TB, name string) []byte {
	b, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// summary is a frame as the .tshark files have it: time, length on the wire,
// length captured, interface, IPv4 protocol, IPv6 next header. The lengths are
// those before an Ethernet header was put in the place of what was there.
func summary(r read, linkLen int) string {
	captured := len(r.frame) - etherLen + linkLen
	line := fmt.Sprintf("%d.%09d\t%d\t%d\t%s\t", r.Time.Unix(), r.Time.Nanosecond(), captured+r.Missing, captured, r.Interface)
	packet := gopacket.NewPacket(r.frame, layers.LayerTypeEthernet, gopacket.Default)
	if ip, ok := packet.NetworkLayer().(*layers.IPv4); ok {
		return line + fmt.Sprintf("%d\t", ip.Protocol)
	}
	if len(r.frame) > etherLen+6 && binary.BigEndian.Uint16(r.frame[12:]) == etherIPv6 { // by hand: it may be cut short
		return line + fmt.Sprintf("\t%d", r.frame[etherLen+6])
	}
	return line + "\t"
}

// Files made by tcpdump, dumpcap, editcap, mergecap and text2pcap read as
// tshark reads them (testdata/make.sh).
func TestReaderAgainstTshark(t *testing.T) {
	wants, err := filepath.Glob("testdata/*.tshark")
	if err != nil || len(wants) < 15 {
		t.Fatalf("%d fixtures, %v", len(wants), err)
	}
	linkLens := map[string]int{"raw.pcap": 0, "rawip4.pcap": 0, "rawip6.pcap": 0, "rawbsd.pcap": 0,
		"null.pcap": 4, "null6.pcap": 4, "loop.pcap": 4, "sll.pcap": 16, "sll2.pcap": 20}
	for _, want := range wants {
		name := strings.TrimSuffix(filepath.Base(want), ".tshark")
		if name == "wifi.pcap" {
			continue
		}
		all, err := readAll(bytes.NewReader(fixture(t, name)))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		lines := strings.Split(strings.TrimSuffix(string(fixture(t, name+".tshark")), "\n"), "\n")
		if len(lines) != len(all) {
			t.Errorf("%s: %d frames, expected %d", name, len(all), len(lines))
			continue
		}
		for i, r := range all {
			linkLen, fixed := linkLens[name]
			line := strings.ReplaceAll(lines[i], "unknown", "")
			got := summary(r, linkLen)
			if !fixed { // several link types in one file, or Ethernet
				got = ""
				for _, n := range []int{etherLen, 0, 20} {
					if s := summary(r, n); got == "" || s == line {
						got = s
					}
				}
			}
			if got != line || r.Number != i+1 {
				t.Errorf("%s: frame %d\n got %q\nwant %q", name, r.Number, got, line)
			}
		}
	}
}

func TestReaderRefusesLinkTypes(t *testing.T) {
	all, err := readAll(bytes.NewReader(fixture(t, "wifi.pcap")))
	if len(all) != 1 || err != nil || !bytes.Equal(all[0].frame, make([]byte, etherLen)) {
		t.Errorf("802.11, cut short: %v, %v", all, err)
	}
	_, err = readAll(bytes.NewReader(pcapFile(binary.LittleEndian, 0xa1b2c3d4, 147, []byte{1})))
	if err == nil || !strings.Contains(err.Error(), "link type 147 (USER0) is not understood") {
		t.Errorf("a pcap file of a foreign link type: %v", err)
	}
}

// A file cut short anywhere is an error of the io.ErrUnexpectedEOF kind, but
// for the places where a record or a block ends.
func TestReaderCutShort(t *testing.T) {
	for _, name := range []string{"ether.pcap", "nano.pcap", "sll2.pcap", "merged.pcapng", "comment.pcapng", "named.pcapng", "ether.pcap.gz"} {
		file := fixture(t, name)
		whole, err := readAll(bytes.NewReader(file))
		if err != nil {
			t.Fatal(err)
		}
		clean := 0
		for n := range file {
			all, err := readAll(bytes.NewReader(file[:n]))
			switch {
			case err == nil:
				clean++
			case !errors.Is(err, io.ErrUnexpectedEOF):
				t.Errorf("%s, %d bytes: %v", name, n, err)
			case strings.Contains(err.Error(), "EOF"):
				t.Errorf("%s, %d bytes: %v does not say that the file ends", name, n, err)
			case n > 24 && len(all) > 0 && !strings.Contains(err.Error(), fmt.Sprintf("frame %d: ", len(all)+1)):
				t.Errorf("%s, %d bytes: %v, after %d frames", name, n, err, len(all))
			}
			if len(all) > len(whole) {
				t.Errorf("%s, %d bytes: %d frames", name, n, len(all))
			}
		}
		blocks := len(whole)
		if strings.HasSuffix(name, "ng") { // its header, interfaces and statistics, too
			blocks += 10
		}
		if clean > blocks {
			t.Errorf("%s: %d of %d cuts went unnoticed", name, clean, len(file))
		}
	}
}

// pcapFile makes a pcap file in either byte order, in which no tool here writes
// the big one.
func pcapFile(order binary.AppendByteOrder, magic, link uint32, records ...[]byte) []byte {
	b := order.AppendUint32(nil, magic)
	b = order.AppendUint16(order.AppendUint16(b, 2), 4)
	for _, v := range []uint32{0, 0, 65535, link} {
		b = order.AppendUint32(b, v)
	}
	for _, r := range records {
		for _, v := range []uint32{1000, 5, uint32(len(r)), uint32(len(r)) + 3} {
			b = order.AppendUint32(b, v)
		}
		b = append(b, r...)
	}
	return b
}

func TestReaderByteOrders(t *testing.T) {
	frame := bytes.Repeat([]byte{7}, 60)
	for magic, at := range map[uint32]time.Time{0xa1b2c3d4: time.Unix(1000, 5000).UTC(), 0xa1b23c4d: time.Unix(1000, 5).UTC()} {
		for _, order := range []binary.AppendByteOrder{binary.BigEndian, binary.LittleEndian} {
			all, err := readAll(bytes.NewReader(pcapFile(order, magic, 0x14000001, frame, frame)))
			if err != nil || len(all) != 2 {
				t.Fatalf("%v %#x: %d frames, %v", order, magic, len(all), err)
			}
			if r := all[1]; r.Number != 2 || r.Missing != 3 || r.Time != at || !bytes.Equal(r.frame, frame) {
				t.Errorf("%v %#x: %+v", order, magic, r)
			}
		}
	}
}

// ngBlock makes a pcapng block of 32-bit words and bytes, which it pads.
func ngBlock(order binary.AppendByteOrder, kind uint32, words []uint32, tail ...byte) []byte {
	tail = append(tail, make([]byte, -len(tail)&3)...)
	n := uint32(12 + 4*len(words) + len(tail))
	b := order.AppendUint32(order.AppendUint32(nil, kind), n)
	for _, w := range words {
		b = order.AppendUint32(b, w)
	}
	return order.AppendUint32(append(b, tail...), n)
}

func ngHeader(order binary.AppendByteOrder, options ...byte) []byte {
	version, link := order.AppendUint16(order.AppendUint16(nil, 1), 0), order.AppendUint16(order.AppendUint16(nil, 1), 0)
	section := ngBlock(order, blockSection, []uint32{byteOrderMagic, binaryWord(order, version), 0xffffffff, 0xffffffff})
	return append(section, ngBlock(order, blockInterface, []uint32{binaryWord(order, link), 4}, options...)...)
}

func binaryWord(order binary.AppendByteOrder, b []byte) uint32 {
	if order == binary.AppendByteOrder(binary.BigEndian) {
		return binary.BigEndian.Uint32(b)
	}
	return binary.LittleEndian.Uint32(b)
}

// Blocks that no tool here writes: big-endian, simple and obsolete packets,
// other timestamp units and offsets, unknown blocks.
func TestReaderBlocks(t *testing.T) {
	for _, order := range []binary.AppendByteOrder{binary.BigEndian, binary.LittleEndian} {
		option := func(code, n uint16, v ...byte) []byte {
			return append(order.AppendUint16(order.AppendUint16(nil, code), n), v...)
		}
		shift := order.AppendUint64(option(optTimeShift, 8), 100)
		file := slices.Concat(
			ngHeader(order, slices.Concat(option(optName, 3, 'e', 't', 'h', 0), option(optTimeUnit, 1, 0x80|4, 0, 0, 0), shift, option(optEnd, 0))...),
			ngBlock(order, 0xbad, []uint32{1, 2, 3}),
			ngBlock(order, blockSimple, []uint32{9}, 1, 2, 3, 4), // snap length 4
			ngBlock(order, blockPacket, []uint32{0, 0, 1<<4 | 8, 2, 2}, 5, 6),
			ngBlock(order, blockEnhanced, []uint32{0, 0, 1<<4 | 4, 3, 8}, 7, 8, 9),
		)
		all, err := readAll(bytes.NewReader(file))
		want := []read{
			{Info{Number: 1, Interface: "eth", Missing: 5}, []byte{1, 2, 3, 4}},
			{Info{Number: 2, Time: time.Unix(101, 5e8).UTC(), Interface: "eth"}, []byte{5, 6}},
			{Info{Number: 3, Time: time.Unix(101, 25e7).UTC(), Interface: "eth", Missing: 5}, []byte{7, 8, 9}},
		}
		for i := range all {
			all[i].origin = origin{}
		}
		if err != nil || fmt.Sprint(all) != fmt.Sprint(want) {
			t.Errorf("%v: %v, %v\nexpected %v", order, all, err, want)
		}
	}
}

// Each section has its own byte order and interfaces. An option of another length than its own says nothing, a packet
// block of old has 16 bits for its interface, and without a snap length a simple one has all of its frame.
func TestReaderSections(t *testing.T) {
	orders := []binary.AppendByteOrder{binary.BigEndian, binary.LittleEndian}
	for i, order := range orders {
		other := orders[1-i]
		words := func(order binary.AppendByteOrder, v ...uint16) (b []byte) {
			for _, v := range v {
				b = order.AppendUint16(b, v)
			}
			return b
		}
		named := func(order binary.AppendByteOrder, name byte, options ...uint16) []byte {
			about := slices.Concat(words(order, optName, 1), []byte{name, 0, 0, 0}, words(order, options...), words(order, optEnd, 0))
			return ngBlock(order, blockInterface, []uint32{binaryWord(order, words(order, 1, 0)), 0}, about...)
		}
		file := slices.Concat(
			ngHeader(order),
			named(order, 'b', optTimeUnit, 2, 0x0909, 0, optTimeShift, 4, 1, 1, optTimeUnit, 0),
			ngBlock(order, blockPacket, []uint32{binaryWord(order, words(order, 1, 7)), 0, 1e6, 2, 2}, 5, 6),
			ngHeader(other)[:28], named(other, 'c'),
			ngBlock(other, blockSimple, []uint32{5}, 1, 2, 3, 4, 5),
			ngBlock(other, blockEnhanced, []uint32{1, 0, 0, 1, 1}, 1),
		)
		all, err := readAll(bytes.NewReader(file))
		want := []read{
			{Info{Number: 1, Time: time.Unix(1, 0).UTC(), Interface: "b"}, []byte{5, 6}},
			{Info{Number: 2, Interface: "c"}, []byte{1, 2, 3, 4, 5}},
		}
		for i := range all {
			all[i].origin = origin{}
		}
		if err == nil || !strings.Contains(err.Error(), "interface 1 is not among the 1") || fmt.Sprint(all) != fmt.Sprint(want) {
			t.Errorf("%v: %v, %v\nexpected %v", order, all, err, want)
		}
	}
}

// ends is a pipe of which nothing more comes for now.
type ends struct {
	t    *testing.T
	rest []byte
}

func (e *ends) Read(b []byte) (int, error) {
	if len(e.rest) == 0 {
		e.t.Error("the reader waits for what is not needed yet")
		return 0, io.EOF
	}
	n := copy(b, e.rest)
	e.rest = e.rest[n:]
	return n, nil
}

// A frame is there as soon as its last byte is, however short it is.
func TestReaderDoesNotWait(t *testing.T) {
	le := binary.LittleEndian
	for name, file := range map[string][]byte{
		"pcap":   pcapFile(le, 0xa1b2c3d4, linkPPP, []byte{0xc0, 0x21, 9}),
		"pcapng": append(ngHeader(le), ngBlock(le, blockEnhanced, []uint32{0, 0, 0, 1, 1}, 1)...),
	} {
		r, err := NewReader(&ends{t, file})
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if _, info, err := r.Next(); err != nil || info.Number != 1 {
			t.Errorf("%s: frame %d, %v", name, info.Number, err)
		}
	}
}

// What is skipped is counted by interface and link type.
func TestReaderSkips(t *testing.T) {
	order := binary.LittleEndian
	file := ngHeader(order)
	for _, c := range []struct {
		name byte
		link uint32
	}{{'a', 147}, {'b', 147}, {'a', 148}} {
		file = append(file, ngBlock(order, blockInterface, []uint32{c.link, 99}, optName, 0, 1, 0, c.name, 0, 0, 0, optEnd, 0, 0, 0)...)
	}
	for _, number := range []uint32{1, 2, 3, 1, 0} { // the last one is understood
		file = append(file, ngBlock(order, blockEnhanced, []uint32{number, 0, 0, 4, 4}, 1, 2, 3, 4)...)
	}
	r, err := NewReader(bytes.NewReader(file))
	if err != nil {
		t.Fatal(err)
	}
	_, info, err := r.Next()
	if want := []Skipped{{"a", 147, false, 2}, {"b", 147, false, 1}, {"a", 148, false, 1}}; err != nil || info.Number != 5 || !slices.Equal(r.Skipped(), want) {
		t.Errorf("frame %d, %v; skipped %v, want %v", info.Number, err, r.Skipped(), want)
	}
}

// Damaged files are refused with the number of the frame they were read up to,
// and nobody allocates what a length field claims.
func TestReaderRefuses(t *testing.T) {
	le := binary.LittleEndian
	huge := pcapFile(le, 0xa1b2c3d4, 1, []byte{1})
	le.PutUint32(huge[24+8:], 0xfffffff0)
	ng := func(blocks ...[]byte) []byte { return slices.Concat(append([][]byte{ngHeader(le)}, blocks...)...) }
	version := pcapFile(le, 0xa1b2c3d4, 1)
	version[4] = 3
	ngVersion := ngHeader(le)
	ngVersion[12] = 2
	unit := func(v byte) []byte { return ngHeader(le, optTimeUnit, 0, 1, 0, v, 0, 0, 0) }
	packet := ngBlock(le, blockEnhanced, []uint32{0, 0, 0, 1, 1}, 1)
	for _, c := range []struct {
		name string
		file []byte
		want string
	}{
		{"empty", nil, "found nothing at all"},
		{"text", []byte("hello, world\n"), "found text"},
		{"text of Windows", []byte("\xef\xbb\xbfsrc 192.0.2.1\r\n"), "found text"},
		{"no text", []byte("\x7fELF\x02\x01\x01\x00"), "starts with 7f 45 4c 46; editcap"},
		{"cut in its header", version[:20], "the file ends here"},
		{"cut in a frame", pcapFile(le, 0xa1b2c3d4, 1, []byte{1, 2, 3})[:42], "frame 1: the file ends here"},
		{"xz", []byte("\xfd7zXZ\x00\x00\x04"), "found xz; give what xz -dc makes of it"},
		{"lz4 of the kernel", []byte("\x02\x21\x4c\x18\x00\x00"), "lz4 -dc"},
		{"bzip2", []byte("BZh91AY"), "bzip2 -dc"},
		{"zip", []byte("PK\x03\x04\x14"), "unzip -p"},
		{"gzip twice", gzipped(gzipped(nil)), "gzip in a compressed file"},
		{"snoop", []byte("snoop\x00\x00\x00"), "found snoop; give what editcap makes of it"},
		{"zeros behind", slices.Concat(pcapFile(le, 0xa1b2c3d4, 1, []byte{1}), make([]byte, 4096)), "frame 2: found zeros"},
		{"cat of two", slices.Concat(pcapFile(le, 0xa1b2c3d4, 1, []byte{1}), pcapFile(le, 0xa1b23c4d, 1, []byte{1})), "frame 2: another capture begins here; mergecap"},
		{"junk behind blocks", ng([]byte("junkyard")), "found 1685217657; from here on the file is damaged"},
		{"pcap version", version, "expected pcap version 2, found 3"},
		{"pcapng version", ngVersion, "expected pcapng version 1, found 2"},
		{"huge frame", huge, "frame 1: expected at most 262144 captured bytes, found 4294967280"},
		{"huge frame in a block", ng(ngBlock(le, blockEnhanced, []uint32{0, 0, 0, 0xfffffff0, 0}, 1)), "frame 1: 4294967280 captured bytes do not fit"},
		{"huge block", ng([]byte{1, 0, 0, 0, 0xfc, 0xff, 0xff, 0xff}), "expected a block body"},
		{"short block", ng([]byte{6, 0, 0, 0, 8, 0, 0, 0}), "at least 12, found 8"},
		{"odd block", ng([]byte{6, 0, 0, 0, 33, 0, 0, 0}), "multiple of 4"},
		{"packet block without room", ng(ngBlock(le, blockEnhanced, []uint32{0, 0, 0})), "ends inside its header"},
		{"interface unknown", ng(packet, ngBlock(le, blockEnhanced, []uint32{1, 0, 0, 1, 1}, 1)), "frame 2: interface 1 is not among the 1"},
		{"option beyond its block", ngHeader(le, 2, 0, 9, 0), "an option of 9 bytes"},
		{"unit too small", unit(20), "too small"},
		{"binary unit too small", unit(0x80 | 64), "too small"},
		{"byte-order magic", append([]byte{0x0a, 0x0d, 0x0d, 0x0a, 28, 0, 0, 0}, make([]byte, 20)...), "byte-order magic"},
		{"gzip of nothing", []byte{0x1f, 0x8b, 8}, "reading gzip"},
	} {
		if _, err := readAll(bytes.NewReader(c.file)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, expected %q", c.name, err, c.want)
		}
	}
	longest := pcapFile(le, 0xa1b2c3d4, 1, make([]byte, MaxFrame), make([]byte, MaxFrame+1))
	if all, err := readAll(bytes.NewReader(longest)); len(all) != 1 || err == nil || !strings.Contains(err.Error(), "frame 2: expected at most 262144") {
		t.Errorf("longest frames: %d, %v", len(all), err)
	}
	for _, v := range []byte{0, 19, 0x80, 0x80 | 63} {
		if _, err := readAll(bytes.NewReader(slices.Concat(unit(v), packet))); err != nil {
			t.Errorf("unit %#x: %v", v, err)
		}
	}
}

func gzipped(b []byte) []byte {
	var to bytes.Buffer
	z := gzip.NewWriter(&to)
	_, _ = z.Write(b)
	_ = z.Close()
	return to.Bytes()
}

// What else stands in front of what is compressed: pzstd begins with a frame that tells lengths.
func TestReaderSkippableFrames(t *testing.T) {
	file := pcapFile(binary.LittleEndian, 0xa1b2c3d4, 1, []byte{1, 2, 3})
	z, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	for name, front := range map[string]string{"one": "\x50\x2a\x4d\x18\x04\x00\x00\x00abcd", "two": "\x5f\x2a\x4d\x18\x00\x00\x00\x00\x51\x2a\x4d\x18\x01\x00\x00\x00a"} {
		if all, err := readAll(bytes.NewReader(z.EncodeAll(file, []byte(front)))); err != nil || len(all) != 1 {
			t.Errorf("%s: %d frames, %v", name, len(all), err)
		}
	}
	if _, err := readAll(strings.NewReader("\x50\x2a\x4d\x18\xff\xff\xff\xff")); err == nil {
		t.Error("a skippable frame alone was taken for a capture")
	}
}

// An interface's name is whatever the capture's author wrote, and goes to terminals.
func TestReaderInterfaceNames(t *testing.T) {
	for name, want := range map[string]string{"eth0\x00": "eth0", "\x1b]0;x\a\u202e\r\n": " ]0;x    ", "b\xc3\xbcro": "b\u00fcro", "\xff": "\ufffd", strings.Repeat("x", 1000): strings.Repeat("x", 255)} {
		option := binary.LittleEndian.AppendUint16([]byte{optName, 0}, uint16(len(name)))
		option = append(option, append([]byte(name), make([]byte, -len(name)&3)...)...)
		packet := ngBlock(binary.LittleEndian, blockEnhanced, []uint32{0, 0, 0, 1, 1}, 1)
		all, err := readAll(bytes.NewReader(append(ngHeader(binary.LittleEndian, option...), packet...)))
		if err != nil || len(all) != 1 || all[0].Interface != want {
			t.Errorf("%q: %v, %v", name, all, err)
		}
	}
}

// A time that RFC 3339 cannot write is none.
func TestReaderTimes(t *testing.T) {
	for _, c := range []struct {
		shift int64
		stamp uint64
		year  int // 1: no time
	}{{0, 0, 1970}, {0, 1<<64 - 1, 1}, {253402300799, 0, 9999}, {253402300799, 1, 1}, {-62135596799, 0, 1}, {-62135596801, 0, 1},
		{1<<63 - 1, 5, 1}, {-1 << 63, 5, 1}, {-62135596800 - 5, 5 + 31536000, 2}} {
		option := binary.LittleEndian.AppendUint64([]byte{optTimeUnit, 0, 1, 0, 0, 0, 0, 0, optTimeShift, 0, 8, 0}, uint64(c.shift))
		packet := ngBlock(binary.LittleEndian, blockEnhanced, []uint32{0, uint32(c.stamp >> 32), uint32(c.stamp), 1, 1}, 1)
		all, err := readAll(bytes.NewReader(append(ngHeader(binary.LittleEndian, option...), packet...)))
		if err != nil || len(all) != 1 || all[0].Time.Year() != c.year {
			t.Errorf("%+v: %v, %v", c, all, err)
		}
	}
}

// Frames too short for their link header are handed on, too.
func TestReaderShortLinkHeaders(t *testing.T) {
	for link, b := range map[uint32][]byte{linkRaw: {}, linkNull: {2, 0, 0}, linkSLL: make([]byte, 15), linkSLL2: make([]byte, 19), 15: nil} {
		all, err := readAll(bytes.NewReader(pcapFile(binary.LittleEndian, 0xa1b2c3d4, link, b)))
		if link == 15 {
			if err == nil {
				t.Error("link type 15 was taken")
			}
		} else if err != nil || !bytes.Equal(all[0].frame, make([]byte, etherLen)) {
			t.Errorf("link type %d: %v, %v", link, all, err)
		}
	}
}

func TestReaderReusesItsBuffer(t *testing.T) {
	file := pcapFile(binary.LittleEndian, 0xa1b2c3d4, 1, slices.Repeat([][]byte{make([]byte, 1400)}, 300)...)
	r, err := NewReader(bytes.NewReader(file))
	if err != nil {
		t.Fatal(err)
	}
	next := func() {
		if _, _, err := r.Next(); err != nil {
			t.Fatal(err)
		}
	}
	next()
	if n := testing.AllocsPerRun(200, next); n > 1 { // the record header
		t.Errorf("%v allocations per frame", n)
	}
}

// FuzzReader: never a panic, numbers in order, and room behind each frame.
func FuzzReader(f *testing.F) {
	for _, name := range []string{"ether.pcap", "sll.pcap", "sll2.pcap", "raw.pcap", "null6.pcap", "comment.pcapng", "named.pcapng", "merged.pcapng", "ether.pcap.gz"} {
		f.Add(fixture(f, name))
	}
	f.Add(pcapFile(binary.BigEndian, 0xa1b23c4d, 1, []byte{1, 2, 3}))
	f.Add(ngHeader(binary.BigEndian, 0, 9, 0, 1, 0x84, 0, 0, 0))
	f.Fuzz(func(t *testing.T, file []byte) {
		if bytes.HasPrefix(file, []byte{0x1f, 0x8b}) && tooLong(file) {
			return
		}
		r, err := NewReader(bytes.NewReader(file))
		if err != nil {
			return
		}
		_, _ = r.Secrets() // looks ahead, and takes nothing
		for last := 0; ; {
			frame, info, err := r.Next()
			n := last + 1
			for _, s := range r.Skipped() {
				n += s.Frames
			}
			if err != nil {
				if err != io.EOF && !strings.Contains(err.Error(), fmt.Sprintf("frame %d: ", n)) {
					t.Fatalf("frame %d: %v", n, err)
				}
				return
			}
			last++
			if info.Number != n || info.Missing < 0 || cap(frame)-len(frame) < status.Tailroom || len(frame) > MaxFrame+etherLen {
				t.Fatalf("frame %d: %+v, %d of %d bytes", n, info, len(frame), cap(frame))
			}
		}
	})
}

// tooLong keeps the fuzzer from compressing megabytes.
func tooLong(file []byte) bool {
	z, err := gzip.NewReader(bytes.NewReader(file))
	if err != nil {
		return false
	}
	n, _ := io.CopyN(io.Discard, z, 1<<20)
	return n == 1<<20
}
