package vectors

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"testing"

	"tapsec/sa"
	"tapsec/status"
)

// The ESP packets that RFCs and drafts publish stand as AEAD vectors in package
// esp. Here each goes through the pipeline as a whole frame.
var published = []string{"mcgrew.txt", "rfc7634.txt", "rfc3602.txt"}

// suites are theirs as configurations have them; K stands for the key's bits.
var suites = map[string]string{
	"aes-gcm-16":        "aesKgcm16",
	"aes-gmac":          "aesKgmac",
	"chacha20-poly1305": "chacha20poly1305",
	"aes-cbc":           "aesK-sha256",
}

const espAt = 14 + 20 // Ethernet and IPv4 header

func TestPublishedPackets(t *testing.T) {
	for _, file := range published {
		for i, v := range read(t, "../../esp/testdata/"+file) {
			if spi := v.get("aad"); spi[:8] == "00000000" {
				continue // the cipher alone, or an SPI that no SA may have
			}
			t.Run(fmt.Sprintf("%s %d", file, i+1), func(t *testing.T) { runPublished(t, v) })
		}
	}
}

func runPublished(t *testing.T, v vector) {
	s := publishedSA(t, v)
	plain := unhex(t, v.get("plaintext"))
	wire, number := publishedFrame(t, s, v)
	body, tr := process(t, [][]*sa.SA{{s}}, wire)
	if tr.Word != status.CryptoDone || tr.Reason != status.Verified || tr.N != 1 {
		t.Fatalf("word %s, reason %s, %d records", tr.Word, tr.Reason, tr.N)
	}
	pad, r := int(plain[len(plain)-2]), tr.Records[0]
	if r.Number != number || int(r.PayloadLen) != len(plain)-2-pad || int(r.PadLen) != pad || r.NextHeader != plain[len(plain)-1] {
		t.Errorf("record %+v", r)
	}
	copy(wire[espAt+8+s.Suite.IVLen:], plain)
	if !bytes.Equal(body, wire) {
		t.Errorf("delivered\n%x\nwant\n%x", body, wire)
	}
}

// publishedSA is an SA with the vector's key. It is in transport mode, since
// some of the packets carry an IP packet and say ICMP.
func publishedSA(t *testing.T, v vector) *sa.SA {
	key := unhex(t, v.get("key"))
	suite, err := sa.ParseSuite(sa.ESP, strings.ReplaceAll(suites[v.get("suite")], "K", strconv.Itoa(len(key)*8)))
	if err != nil {
		t.Fatal(err)
	}
	aad := unhex(t, v.get("aad"))
	s := &sa.SA{
		Name: t.Name(), SPI: binary.BigEndian.Uint32(aad), Protocol: sa.ESP, Mode: sa.Transport, Suite: suite,
		EncryptionKey: sa.NewKey(append(key, unhex(t, v.get("salt"))...)), IntegrityKey: sa.NewKey(make([]byte, suite.AuthLen)),
		PadCheck: true, Dst: netip.MustParseAddr("192.0.2.2"), ESN: len(aad) == 12,
	}
	if s.ESN {
		s.SeqHigh = binary.BigEndian.Uint32(aad[4:])
	}
	return s
}

// publishedFrame puts the vector's ESP packet behind headers, and gives its
// number. RFC 3602 has no ICV; the standard library makes it.
func publishedFrame(t *testing.T, s *sa.SA, v vector) (frame []byte, number uint64) {
	aad := unhex(t, v.get("aad"))
	low := aad[len(aad)-4:]
	esp := append(append(append(aad[:4:4], low...), unhex(t, v.get("iv"))...), unhex(t, v.get("sealed"))...)
	if s.Suite.Integrity == sa.HMACSHA256 {
		h := hmac.New(sha256.New, s.IntegrityKey.Bytes())
		h.Write(esp)
		esp = append(esp, h.Sum(nil)[:s.Suite.ICVLen]...)
	}
	frame = append(make([]byte, 12), 8, 0, 0x45, 0)
	frame = binary.BigEndian.AppendUint16(frame, uint16(20+len(esp)))
	frame = append(frame, 0, 0, 0, 0, 64, 50, 0, 0, 192, 0, 2, 1, 192, 0, 2, 2)
	return append(frame, esp...), uint64(s.SeqHigh)<<32 | uint64(binary.BigEndian.Uint32(low))
}
