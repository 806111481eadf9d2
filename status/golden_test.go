package status

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the golden files and their copies in docs/trailer.md")

const (
	docFile   = "../docs/trailer.md"
	goldenDir = "../docs/trailer"
)

// The frames are complete but for keys: their ICVs are a pattern, and what
// would be ciphertext is one, too.
var (
	greeting = udpPacket("hello")
	opened   = espPacket(0xc002, 7, 17, greeting)
)

func udpPacket(payload string) []byte {
	b := binary.BigEndian.AppendUint16(nil, 7)
	b = binary.BigEndian.AppendUint16(b, 7)
	b = binary.BigEndian.AppendUint16(b, uint16(8+len(payload)))
	return append(append(b, 0, 0), payload...)
}

// espPacket has an IV of 8 and an ICV of 16 bytes, as AES-GCM has.
func espPacket(spi, seq uint32, next byte, payload []byte) []byte {
	b := binary.BigEndian.AppendUint32(nil, spi)
	b = binary.BigEndian.AppendUint32(b, seq)
	b = append(b, bytes.Repeat([]byte{0x1f}, 8)...)
	b = append(b, payload...)
	pad := byte(0)
	for ; len(b)%4 != 2; pad++ {
		b = append(b, pad+1)
	}
	b = append(b, pad, next)
	return append(b, bytes.Repeat([]byte{0xcc}, 16)...)
}

// ahPacket has an ICV of 12 bytes.
func ahPacket(spi, seq uint32, next byte, payload []byte) []byte {
	b := []byte{next, 4, 0, 0}
	b = binary.BigEndian.AppendUint32(b, spi)
	b = binary.BigEndian.AppendUint32(b, seq)
	b = append(b, bytes.Repeat([]byte{0xaa}, 12)...)
	return append(b, payload...)
}

func ipPacket(proto byte, payload []byte) []byte {
	b := []byte{0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, proto, 0, 0}
	binary.BigEndian.PutUint16(b[2:], uint16(20+len(payload)))
	for _, a := range []string{"192.0.2.1", "192.0.2.2"} {
		b = append(b, netip.MustParseAddr(a).AsSlice()...)
	}
	sum := uint32(0)
	for i := 0; i < len(b); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	binary.BigEndian.PutUint16(b[10:], ^uint16(sum+sum>>16))
	return append(b, payload...)
}

func ethernet(packet []byte) []byte {
	return append([]byte{2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0}, packet...)
}

func espRecord(p Portion, spi uint32, ip, ipsec, length uint16, pad, next byte) Record {
	return Record{Portion: p, Protocol: 50, SPI: spi, Number: 1<<32 | 7, Handle: 3, State: ICVValid, Code: Success, Reason: Verified,
		IP: ip, IPsec: ipsec, Payload: ipsec + 16, PayloadLen: length, IVLen: 8, PadLen: pad, ICVLen: 16, NextHeader: next}
}

func ahRecord(p Portion, spi uint32, ip, ipsec, length uint16) Record {
	return Record{Portion: p, Protocol: 51, SPI: spi, Number: 7, Handle: 4, State: ICVValid, Code: Success, Reason: Verified,
		IP: ip, IPsec: ipsec, Payload: ipsec + 24, PayloadLen: length, ICVLen: 12, NextHeader: 50}
}

type golden struct {
	name, about string
	wire        []byte // the frame as received
	body        []byte // as delivered, where it differs
	trailer     Trailer
	records     []Record
}

func goldens() []golden {
	nested := espPacket(0xc001, 7, 4, ipPacket(50, opened))
	failed := espRecord(TunnelPortion, 0xc001, 14, 34, 72, 0, 0)
	failed.State, failed.Code, failed.Reason, failed.DeleteSA = FailedBefore, TunnelESPAuthFailed, ESPICV, true
	both := Word(CryptoDone | NextCryptoDone)
	bundle := ahPacket(0xa002, 7, 50, opened)
	return []golden{
		{"clear", "no IPsec (contract row 1); 47 bytes received, 13 of padding",
			ethernet(ipPacket(17, greeting)), nil, Trailer{Reason: NoIPsec}, nil},
		{"esp", "ESP, transport mode, good (row 5)",
			ethernet(ipPacket(50, opened)), nil, Trailer{Word: CryptoDone, Reason: Verified},
			[]Record{espRecord(TransportPortion, 0xc002, 14, 34, 13, 1, 17)}},
		{"tunnel-transport", "ESP in an ESP tunnel, both good (row 11)",
			ethernet(ipPacket(50, nested)), nil, Trailer{Word: both, Reason: Verified},
			[]Record{espRecord(TunnelPortion, 0xc001, 14, 34, 68, 2, 4), espRecord(TransportPortion, 0xc002, 50, 70, 13, 1, 17)}},
		{"ah-esp", "AH and ESP on one portion, both good (row 18)",
			ethernet(ipPacket(51, bundle)), nil, Trailer{Word: CryptoDone, Reason: Verified},
			[]Record{ahRecord(TransportPortion, 0xa002, 14, 34, 48), espRecord(TransportPortion, 0xc002, 14, 58, 13, 1, 17)}},
		{"failed", "ESP tunnel, ICV wrong, with the table under pressure (rows 10 and 26)",
			ethernet(ipPacket(50, espPacket(0xc001, 7, 0xee, bytes.Repeat([]byte{0xee}, 70)))), nil,
			Trailer{Word: (CryptoDone | SADeleteReq).WithCode(TunnelESPAuthFailed), Reason: ESPICV}, []Record{failed}},
		{"decap", "the frame of esp in the form decap: the record describes the wire frame",
			ethernet(ipPacket(50, opened)), ethernet(ipPacket(17, greeting)),
			Trailer{Word: CryptoDone, Reason: Verified, Form: Decap, Removed: 1},
			[]Record{espRecord(TransportPortion, 0xc002, 14, 34, 13, 1, 17)}},
		{"four-records", "AH and ESP in a tunnel of AH and ESP, all good (row 33)",
			ethernet(ipPacket(51, ahPacket(0xa001, 7, 50, espPacket(0xc001, 7, 4, ipPacket(51, bundle))))), nil,
			Trailer{Word: both, Reason: Verified},
			[]Record{ahRecord(TunnelPortion, 0xa001, 14, 34, 128), espRecord(TunnelPortion, 0xc001, 14, 58, 92, 2, 4),
				ahRecord(TransportPortion, 0xa002, 74, 94, 48), espRecord(TransportPortion, 0xc002, 74, 118, 13, 1, 17)}},
	}
}

// frame is the delivered frame, and where its trailer begins.
func (g *golden) frame() ([]byte, int) {
	t := &g.trailer
	t.WireLen, t.Ordinal, t.Received = uint32(len(g.wire)), 42, 1767323045000000006
	for _, r := range g.records {
		t.Add(r)
	}
	body := g.wire
	if g.body != nil {
		body = g.body
	}
	frame := Annotate(bytes.Clone(body), t)
	return frame, len(frame) - t.Len()
}

// describe says in words what a trailer holds, as comments of a hex dump.
func describe(t *Trailer) string {
	var b strings.Builder
	fmt.Fprintf(&b, "# word %s %s, reason %d %s\n", t.Word, t.Word.Code(), t.Reason, t.Reason)
	fmt.Fprintf(&b, "# form %s, removed %d, records %d, omitted %d, queue %d\n", t.Form, t.Removed, t.N, t.Omitted, t.Queue)
	fmt.Fprintf(&b, "# wire length %d, ordinal %d, received %s\n", t.WireLen, t.Ordinal, t.Time().UTC().Format("2006-01-02T15:04:05.000000000Z"))
	for i, r := range t.Records[:t.N] {
		fmt.Fprintf(&b, "# record %d: %s portion, protocol %d, SPI %#08x, number %d, handle %d\n", i+1, r.Portion, r.Protocol, r.SPI, r.Number, r.Handle)
		fmt.Fprintf(&b, "#   %s, %s, reason %d %s, delete %v\n", r.State, r.Code, r.Reason, r.Reason, r.DeleteSA)
		fmt.Fprintf(&b, "#   IP at %d, IPsec at %d, payload at %d of %d, IV %d, pad %d, ICV %d, next header %d\n",
			r.IP, r.IPsec, r.Payload, r.PayloadLen, r.IVLen, r.PadLen, r.ICVLen, r.NextHeader)
	}
	return b.String()
}

// dump writes lines of offset and up to 16 bytes; each record and the base
// begin a line of their own.
func dump(frame []byte, trailer int) string {
	var b strings.Builder
	breaks := []int{trailer, len(frame)}
	for at := trailer; at < len(frame)-BaseLen; at += RecordLen {
		breaks = append(breaks[:len(breaks)-1], at+RecordLen, len(frame))
	}
	at := 0
	for _, end := range breaks {
		for ; at < end; at = min(at+16, end) {
			fmt.Fprintf(&b, "%04x  % x\n", at, frame[at:min(at+16, end)])
		}
	}
	return b.String()
}

// Golden frames, docs/trailer/*.hex: the codec writes and reads exactly these.
// They are also what other readers are tested against; text2pcap takes them.
func TestGolden(t *testing.T) {
	for _, g := range goldens() {
		t.Run(g.name, func(t *testing.T) {
			frame, at := g.frame()
			want := "# " + g.about + "\n" + describe(&g.trailer) + dump(frame, at)
			path := filepath.Join(goldenDir, g.name+".hex")
			if *update {
				if err := os.WriteFile(path, []byte(want), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			file, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if string(file) != want {
				t.Errorf("%s differs from what is written now (-update mends it):\n%s", path, want)
			}
			body, got, err := Split(readDump(t, string(file)))
			if err != nil || got != g.trailer || len(body) != at {
				t.Errorf("%s reads as %+v, %v", path, got, err)
			}
			checkOffsets(t, g, frame)
		})
	}
}

// checkOffsets holds the examples to the meaning of their own fields.
func checkOffsets(t *testing.T, g golden, frame []byte) {
	if g.body != nil {
		frame = g.wire
	}
	for i, r := range g.records {
		spi := int(r.IPsec) + 4*int(r.Protocol-50)
		if got := binary.BigEndian.Uint32(frame[spi:]); got != r.SPI {
			t.Errorf("record %d: SPI %#x at %d, expected %#x", i, got, spi, r.SPI)
		}
		end := int(r.Payload + r.PayloadLen)
		if r.Protocol == 50 && r.State == ICVValid && (frame[end+int(r.PadLen)] != r.PadLen || frame[end+int(r.PadLen)+1] != r.NextHeader) {
			t.Errorf("record %d: pad length and next header are not behind the payload", i)
		}
		if frame[r.IP]>>4 != 4 || frame[r.IP+9] != r.Protocol && i == 0 {
			t.Errorf("record %d: no IP header at %d", i, r.IP)
		}
	}
}

func readDump(t *testing.T, text string) []byte {
	var frame []byte
	for line := range strings.Lines(text) {
		offset, digits, _ := strings.Cut(strings.TrimSpace(line), "  ")
		if strings.HasPrefix(line, "#") {
			continue
		}
		b, err := hex.DecodeString(strings.ReplaceAll(digits, " ", ""))
		if err != nil || offset != fmt.Sprintf("%04x", len(frame)) {
			t.Fatalf("line %q: %v", line, err)
		}
		frame = append(frame, b...)
	}
	return frame
}

// docs/trailer.md shows the trailer of every golden frame and every reason.
func TestTrailerDocument(t *testing.T) {
	doc, err := os.ReadFile(docFile)
	if err != nil {
		t.Fatal(err)
	}
	want := string(doc)
	for _, g := range goldens() {
		frame, at := g.frame()
		_, shown, _ := strings.Cut(dump(frame, at), fmt.Sprintf("\n%04x  ", at))
		want = section(t, want, "hex "+g.name, "# "+g.about+"\n"+describe(&g.trailer)+fmt.Sprintf("%04x  ", at)+shown)
	}
	var list strings.Builder
	for _, r := range Reasons() {
		fmt.Fprintf(&list, "%3d  %-22s  %s\n", r, r, r.Sentence())
	}
	want = section(t, want, "reasons", list.String())
	if *update {
		if err := os.WriteFile(docFile, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	} else if want != string(doc) {
		t.Errorf("%s is out of date: run go test ./status -update", docFile)
	}
}

// section puts text into the fenced block of that title.
func section(t *testing.T, doc, title, text string) string {
	block := regexp.MustCompile("(?s)(```text " + title + "\n).*?(```\n)")
	if len(block.FindAllString(doc, -1)) != 1 {
		t.Fatalf("%s needs one block %q", docFile, title)
	}
	return block.ReplaceAllString(doc, "${1}"+strings.ReplaceAll(text, "$", "$$")+"${2}")
}
