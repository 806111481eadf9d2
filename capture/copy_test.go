package capture

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"

	"tapsec/internal/lab/rig"
)

// copied reads a capture and writes it anew with a byte behind each frame.
func copied(t testing.TB, file []byte) (out []byte, skipped []Skipped) {
	t.Helper()
	r, err := NewReader(bytes.NewReader(file))
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	c := r.CopyTo(&b)
	for {
		frame, info, err := r.Next()
		if err == io.EOF {
			return b.Bytes(), r.Skipped()
		}
		if err == nil {
			err = c.Frame(append(frame, 0xee), info, fmt.Sprintf("verdict %d", info.Number))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// rich is a pcapng file with everything that a copy is to keep: two interfaces
// with clocks of their own, one of them foreign, names, secrets, statistics, a
// block of somebody's own, comments, a time before 1970 and one in year 57971, and
// frames cut short.
func rich(order binary.AppendByteOrder) []byte {
	option := func(code uint16, v ...byte) []byte {
		b := order.AppendUint16(order.AppendUint16(nil, code), uint16(len(v)))
		return append(append(b, v...), make([]byte, -len(v)&3)...)
	}
	face := func(link uint16, options ...[]byte) []byte {
		word := binaryWord(order, append(order.AppendUint16(nil, link), 0, 0))
		return ngBlock(order, blockInterface, []uint32{word, 100}, slices.Concat(slices.Concat(options...), option(optEnd))...)
	}
	frame := make([]byte, 60)
	packet := func(id uint32, stamp uint64, length uint32, options ...[]byte) []byte {
		return ngBlock(order, blockEnhanced, []uint32{id, uint32(stamp >> 32), uint32(stamp), 60, length},
			slices.Concat(frame, slices.Concat(options...), option(optEnd))...)
	}
	flags := option(2, order.AppendUint32(nil, 1)...)
	const names, statistics, secrets, custom = 4, 5, 10, 0xbad
	return slices.Concat(
		ngBlock(order, blockSection, []uint32{byteOrderMagic, binaryWord(order, append(order.AppendUint16(nil, 1), 0, 0)), 0xffffffff, 0xffffffff},
			slices.Concat(option(3, []byte("an OS")...), option(optEnd))...),
		face(1, option(optName, []byte("eth7")...), option(optTimeUnit, 9), option(11, append([]byte{0}, "udp"...)...)),
		face(147, option(optName, []byte("odd0")...)),
		ngBlock(order, names, nil, slices.Concat(option(1, append([]byte{192, 0, 2, 1}, "gateway\x00"...)...), option(0))...),
		ngBlock(order, secrets, []uint32{0x544c534b, 4}, []byte("key\n")...),
		packet(0, 1_700_000_000_000_000_123, 60, option(optComment, []byte("from before")...), flags, option(3, 0, 1, 2, 3)),
		packet(1, 5, 60),
		packet(0, 1<<63, 1514),
		packet(0, ^uint64(0), 60),
		ngBlock(order, custom, []uint32{32473, 7}),
		ngBlock(order, statistics, []uint32{0, 0, 9}, slices.Concat(option(4, 1, 0, 0, 0, 0, 0, 0, 0), option(optEnd))...),
	)
}

// A copy has the frames anew and everything else as it was.
func TestCopyKeeps(t *testing.T) {
	for name, order := range map[string]binary.AppendByteOrder{"little": binary.LittleEndian, "big": binary.BigEndian} {
		file := rich(order)
		got, skipped := copied(t, file)
		if fmt.Sprint(skipped) != "[1 of interface odd0 with link type 147 (USER0)]" {
			t.Errorf("%s: skipped %v", name, skipped)
		}
		before, after := blocksOf(t, order, file), blocksOf(t, order, got)
		if len(before) != len(after) {
			t.Fatalf("%s: %d blocks of %d", name, len(after), len(before))
		}
		for i := range before {
			b, a := before[i], after[i]
			switch kind := order.(binary.ByteOrder).Uint32(b); {
			case kind == blockEnhanced && order.(binary.ByteOrder).Uint32(b[8:]) == 0:
				want := slices.Concat(b[8:20], order.AppendUint32(nil, 61), order.AppendUint32(nil, order.(binary.ByteOrder).Uint32(b[24:])+1))
				if !bytes.Equal(a[8:28], want) || a[28+60] != 0xee {
					t.Errorf("%s: frame in block %d\n%x, want\n%x", name, i, a[8:28], want)
				}
				if i == 5 && (!bytes.Contains(a, []byte("from before")) || !bytes.Contains(a, []byte("verdict 1")) ||
					!bytes.Contains(a, order.AppendUint16(order.AppendUint16(nil, 2), 4)) || bytes.Contains(a, []byte{0, 5, 0, 1, 2, 3})) {
					t.Errorf("%s: its options are %q", name, a[28+64:])
				}
			case kind == blockInterface && i == 1:
				if bytes.Equal(a[12:16], b[12:16]) || !bytes.Equal(a[16:], b[16:]) {
					t.Errorf("%s: the interface\n%x, was\n%x", name, a, b)
				}
			case kind == blockEnhanced: // the foreign one
				if !bytes.Equal(a[8:28+60], b[8:28+60]) {
					t.Errorf("%s: a frame that is not understood was changed", name)
				}
			default:
				if !bytes.Equal(a, b) {
					t.Errorf("%s: block %d\n%x, was\n%x", name, i, a, b)
				}
			}
		}
	}
}

// What whoever made it up wants left out of changed files is left out: Custom Blocks and options
// of the other kind (draft-ietf-opsawg-pcapng, sections 3.5.1 and 4.10).
func TestCopyLeavesOut(t *testing.T) {
	order := binary.LittleEndian
	option := func(code uint16, v string) []byte {
		b := order.AppendUint16(order.AppendUint16(nil, code), uint16(4+len(v)))
		return append(append(order.AppendUint32(b, 32473), v...), make([]byte, -len(v)&3)...)
	}
	options := slices.Concat(option(2988, "kept"), option(19372, "own text"), option(2989, "kept"), option(19373, "own bytes"), make([]byte, 4))
	file := slices.Concat(
		ngBlock(order, blockSection, []uint32{byteOrderMagic, 1, 0xffffffff, 0xffffffff}, options...),
		ngBlock(order, blockInterface, []uint32{linkEthernet, 0}, options...),
		ngBlock(order, 0xbad, []uint32{32473}, []byte("kept")...),
		ngBlock(order, 0x40000bad, []uint32{32473}, []byte("own block")...),
		ngBlock(order, blockEnhanced, []uint32{0, 0, 0, 60, 60}, slices.Concat(make([]byte, 60), options)...),
	)
	got, _ := copied(t, file)
	if bytes.Contains(got, []byte("own")) {
		t.Errorf("copied what is not to be:\n%q", got)
	}
	if n := bytes.Count(got, []byte("kept")); n != 7 {
		t.Errorf("%d of 7 things are kept:\n%q", n, got)
	}
}

// blocksOf cuts a pcapng file into its blocks.
func blocksOf(t *testing.T, order binary.AppendByteOrder, file []byte) (all [][]byte) {
	t.Helper()
	for len(file) > 0 {
		n := order.(binary.ByteOrder).Uint32(file[4:])
		all = append(all, file[:n])
		file = file[n:]
	}
	return all
}

// tshark reads in a copy what it reads in the capture, one byte longer.
func TestCopyAgainstTshark(t *testing.T) {
	if _, err := exec.LookPath("tshark"); err != nil {
		rig.Missing(t, "tshark")
	}
	read := func(file []byte) string {
		path := filepath.Join(t.TempDir(), "file")
		if err := os.WriteFile(path, file, 0o600); err != nil {
			t.Fatal(err)
		}
		out, err := exec.Command("tshark", "-n", "-r", path, "-T", "fields", "-e", "frame.number", "-e", "frame.time_epoch",
			"-e", "frame.interface_name", "-e", "ip.proto", "-e", "ipv6.nxt", "-e", "frame.cap_len", "-e", "frame.len").Output()
		if err != nil {
			t.Fatalf("tshark: %v", err)
		}
		return strings.ReplaceAll(string(out), "unknown", "")
	}
	for _, name := range []string{"ether.pcap", "nano.pcap", "snap.pcap", "named.pcapng", "comment.pcapng"} {
		file := fixture(t, name)
		out, _ := copied(t, file)
		got, want := strings.Fields(read(out)), strings.Fields(read(file))
		if len(got) != len(want) {
			t.Errorf("%s:\n%s\nwas\n%s", name, got, want)
			continue
		}
		differ := 0
		for i := range got {
			if got[i] != want[i] {
				differ++ // the lengths, by one
			}
		}
		if frames := strings.Count(read(file), "\n"); differ != 2*frames {
			t.Errorf("%s: %d fields of %d frames differ:\n%s\nwas\n%s", name, differ, frames, got, want)
		}
	}
}

// A copy whose reader has left keeps the error, and reads on.
func TestCopyFails(t *testing.T) {
	r, err := NewReader(bytes.NewReader(fixture(t, "ether.pcap")))
	if err != nil {
		t.Fatal(err)
	}
	c := r.CopyTo(broken{io.ErrClosedPipe})
	frame, info, err := r.Next()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Frame(frame, info, ""); err == nil || c.Close() == nil {
		t.Errorf("%v, %v", err, c.Close())
	}
}

// Compressed captures read like plain ones, however they are compressed.
func TestReaderDecompresses(t *testing.T) {
	file := fixture(t, "merged.pcapng")
	want, err := readAll(bytes.NewReader(file))
	if err != nil {
		t.Fatal(err)
	}
	for name, compress := range map[string]func(io.Writer) io.WriteCloser{
		"zstd": func(w io.Writer) io.WriteCloser { z, _ := zstd.NewWriter(w); return z },
		"lz4":  func(w io.Writer) io.WriteCloser { return lz4.NewWriter(w) },
	} {
		var b bytes.Buffer
		w := compress(&b)
		if _, err := w.Write(file); err != nil || w.Close() != nil {
			t.Fatal(err)
		}
		got, err := readAll(bytes.NewReader(b.Bytes()))
		if err != nil || fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%s: %d frames, %v", name, len(got), err)
		}
		if _, err := readAll(bytes.NewReader(b.Bytes()[:b.Len()/2])); err == nil {
			t.Errorf("%s: cut short and no error", name)
		}
	}
}

// Every link type that is understood leads to the packet in it.
func TestReaderLinks(t *testing.T) {
	v4, v6 := append([]byte{0x45}, make([]byte, 19)...), append([]byte{0x60}, make([]byte, 39)...)
	le16 := func(v uint16) []byte { return binary.LittleEndian.AppendUint16(nil, v) }
	snap := func(etherType uint16) []byte {
		return binary.BigEndian.AppendUint16([]byte{0xaa, 0xaa, 3, 0, 0, 0}, etherType)
	}
	air := func(control ...byte) []byte { return append(control, make([]byte, 24-len(control))...) }
	pktapOf := func(link uint32) []byte {
		b := binary.LittleEndian.AppendUint32(nil, 108)
		b = append(b, make([]byte, 104)...)
		binary.LittleEndian.PutUint32(b[8:], link)
		return b
	}
	ether := append(make([]byte, 12), 8, 0)
	for name, c := range map[string]struct {
		link   uint32
		header []byte
		packet []byte
		kind   uint16
	}{
		"PPP":                     {linkPPP, []byte{0xff, 3, 0, 0x21}, v4, etherIPv4},
		"PPP without address":     {linkPPP, []byte{0, 0x57}, v6, etherIPv6},
		"PPP, short protocol":     {linkPPP, []byte{0x21}, v4, etherIPv4},
		"PPP, LCP":                {linkPPP, []byte{0xff, 3, 0xc0, 0x21}, v4, etherNone},
		"PPP in HDLC":             {linkPPPHDLC, []byte{0xff, 3, 0, 0x21}, v4, etherIPv4},
		"Cisco in PPP_HDLC":       {linkPPPHDLC, []byte{0x0f, 0, 8, 0}, v4, etherIPv4},
		"PPP with direction":      {linkPPPDir, []byte{1, 0xff, 3, 0, 0x57}, v6, etherIPv6},
		"Cisco HDLC":              {linkCHDLC, []byte{0x8f, 0, 0x86, 0xdd}, v6, etherIPv6},
		"ENC":                     {linkENC, []byte{2, 0, 0, 0, 0, 0, 0x10, 1, 0, 0, 0, 0}, v4, etherIPv4},
		"ENC of OpenBSD, IPv6":    {linkENC, []byte{0, 0, 0, 24, 0, 0, 0x10, 1, 0, 0, 0, 0}, v6, etherIPv6},
		"NFLOG":                   {linkNFLOG, slices.Concat([]byte{2, 0, 0, 1}, le16(8), le16(1), make([]byte, 4), le16(5), le16(10), []byte{'x', 0, 0, 0}, le16(24), le16(9)), v4, etherIPv4},
		"NFLOG, big-endian":       {linkNFLOG, []byte{10, 0, 0, 1, 0, 8, 0, 1, 0, 0, 0, 0, 0, 44, 0, 9}, v6, etherIPv6},
		"PKTAP of raw IP":         {linkPKTAP, pktapOf(linkRawBSD), v4, etherIPv4},
		"PKTAP of Ethernet":       {linkPKTAP, append(pktapOf(1), ether...), v4, etherIPv4},
		"raw IP of OpenBSD":       {linkRawOpen, nil, v6, etherIPv6},
		"PPPoE":                   {linkPPPoE, []byte{0x11, 0, 0, 1, 0, 22, 0, 0x21}, v4, etherIPv4},
		"PPPoE, end of session":   {linkPPPoE, []byte{0x11, 0xa7, 0, 1, 0, 0}, v4, etherNone},
		"PPI of 802.11":           {linkPPI, slices.Concat([]byte{0, 0, 12, 0, linkWiFi, 0, 0, 0, 1, 2, 3, 4}, air(8, 1), snap(0x0800)), v4, etherIPv4},
		"802.11":                  {linkWiFi, append(air(8, 1), snap(0x0800)...), v4, etherIPv4},
		"802.11, four addresses":  {linkWiFi, slices.Concat(air(8, 3), make([]byte, 6), snap(0x86dd)), v6, etherIPv6},
		"802.11 QoS":              {linkWiFi, slices.Concat(air(0x88, 2), make([]byte, 2), snap(0x0800)), v4, etherIPv4},
		"802.11, sent again":      {linkWiFi, slices.Concat(air(8, 9)[:22], le16(0x1230), snap(0x0800)), v4, etherIPv4},
		"802.11, all of it":       {linkWiFi, slices.Concat(air(0xb8, 0x8b)[:22], le16(0x1230), make([]byte, 12), snap(0x0800)), v4, etherIPv4},
		"802.11, subtype 1":       {linkWiFi, append(air(0x18, 1), snap(0x0800)...), v4, etherIPv4},
		"802.11, no data":         {linkWiFi, append(air(0x48, 1), snap(0x0800)...), v4, etherNone},
		"802.11, first fragment":  {linkWiFi, append(air(8, 5), snap(0x0800)...), v4, etherNone},
		"802.11, later fragment":  {linkWiFi, slices.Concat(air(8, 1)[:22], le16(0x1231), snap(0x0800)), v4, etherNone},
		"802.11, management":      {linkWiFi, append(air(0, 0), snap(0x0800)...), v4, etherNone},
		"802.11, encrypted":       {linkWiFi, append(air(8, 0x41), snap(0x0800)...), v4, etherNone},
		"802.11, beacon":          {linkWiFi, append(air(0x80, 0), snap(0x0800)...), v4, etherNone},
		"802.11 behind radiotap":  {linkRadiotap, slices.Concat([]byte{0, 0, 12, 0}, make([]byte, 8), air(8, 1), snap(0x0800)), v4, etherIPv4},
		"radiotap, cut short":     {linkRadiotap, []byte{0, 0, 200, 0}, nil, etherNone},
		"NFLOG without a payload": {linkNFLOG, []byte{2, 0, 0, 1, 0, 0, 0, 0}, nil, etherNone},
	} {
		all, err := readAll(bytes.NewReader(pcapFile(binary.LittleEndian, 0xa1b2c3d4, c.link, append(slices.Clone(c.header), c.packet...))))
		if err != nil || len(all) != 1 {
			t.Errorf("%s: %d frames, %v", name, len(all), err)
			continue
		}
		frame := all[0].frame
		if kind := binary.BigEndian.Uint16(frame[12:]); kind != c.kind || kind != etherNone && !bytes.Equal(frame[etherLen:], c.packet) {
			t.Errorf("%s: EtherType %#04x\n%x", name, kind, frame)
		}
		for n := range len(c.header) + len(c.packet) { // a capture may have cut it anywhere
			whole := append(slices.Clone(c.header), c.packet...)
			if _, err := readAll(bytes.NewReader(pcapFile(binary.LittleEndian, 0xa1b2c3d4, c.link, whole[:n]))); err != nil {
				t.Errorf("%s, %d bytes of it: %v", name, n, err)
			}
		}
	}
	foreign := pcapFile(binary.LittleEndian, 0xa1b2c3d4, linkPKTAP, append(pktapOf(147), v4...), append(pktapOf(12), v4...))
	all, err := readAll(bytes.NewReader(foreign))
	if err != nil || len(all) != 1 || all[0].Number != 2 {
		t.Errorf("PKTAP of a foreign link type: %v, %v", all, err)
	}
	out, _ := copied(t, foreign)
	if again, err := readAll(bytes.NewReader(out)); err != nil || len(again) != 1 {
		t.Errorf("its copy, which is of Ethernet: %d frames, %v", len(again), err)
	}
	for _, order := range []binary.AppendByteOrder{binary.LittleEndian, binary.BigEndian} { // Kuznetzov's records
		file := pcapFile(order, 0xa1b2cd34, 1)
		for range 2 {
			for _, v := range []uint32{1000, 5, 20, 20, 1, 0} {
				file = order.AppendUint32(file, v)
			}
			file = append(file, make([]byte, 20)...)
		}
		if all, err := readAll(bytes.NewReader(file)); err != nil || len(all) != 2 || len(all[1].frame) != 20 {
			t.Errorf("modified pcap, %v: %v, %v", order, all, err)
		}
	}
}

// FuzzCopy: a copy of whatever can be read can be read again, with as many frames.
func FuzzCopy(f *testing.F) {
	f.Add(rich(binary.LittleEndian))
	f.Add(rich(binary.BigEndian))
	f.Add(fixture(f, "sections.pcapng"))
	f.Fuzz(func(t *testing.T, file []byte) {
		all, err := readAll(bytes.NewReader(file))
		if err != nil || len(file) > 1<<20 || tooLong(file) {
			return
		}
		out, skipped := copied(t, file)
		if bytes.HasPrefix(file, []byte{0x0a, 0x0d, 0x0d, 0x0a}) || len(out) > 0 {
			again, err := readAll(bytes.NewReader(out))
			if err != nil || len(again) != len(all) {
				t.Fatalf("%d frames, %v; the capture has %d (skipped %v)", len(again), err, len(all), skipped)
			}
		}
	})
}

// Frames beside those that came, as tapsec delivered them, can be left out. A Copy keeps them.
func TestSkipDelivered(t *testing.T) {
	var file bytes.Buffer
	w, err := NewWriter(&file)
	if err != nil {
		t.Fatal(err)
	}
	for iface, what := range []string{"frames as they came", Delivered} {
		if _, err := w.Interface(fmt.Sprint("if", iface), what); err != nil {
			t.Fatal(err)
		}
	}
	for n := range 6 {
		if err := w.Frame(n%2, time.Unix(1, 0), bytes.Repeat([]byte{byte(n)}, 60), ""); err != nil {
			t.Fatal(err)
		}
	}
	for _, skip := range []bool{false, true} {
		r, err := NewReader(bytes.NewReader(file.Bytes()))
		if err != nil {
			t.Fatal(err)
		}
		if skip {
			r.SkipDelivered()
		}
		var out bytes.Buffer
		c := r.CopyTo(&out)
		var numbers []int
		for {
			frame, info, err := r.Next()
			if err == io.EOF {
				break
			}
			if err = errors.Join(err, c.Frame(frame, info, "")); err != nil {
				t.Fatal(err)
			}
			numbers = append(numbers, info.Number)
		}
		again, err := readAll(&out)
		if err != nil || len(again) != 6 || r.Frames() != 6 {
			t.Errorf("skip %v: %d frames in the copy, %d read, %v", skip, len(again), r.Frames(), err)
		}
		want, left := []int{1, 2, 3, 4, 5, 6}, "[]"
		if skip {
			want, left = []int{1, 3, 5}, "[3 of interface if1 as tapsec delivered them, judged already; tapsec show tells of those]"
		}
		if !slices.Equal(numbers, want) || fmt.Sprint(r.Skipped()) != left {
			t.Errorf("skip %v: frames %v, skipped %v", skip, numbers, r.Skipped())
		}
	}
}
