package esp

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"testing"

	"tapsec/sa"
	"tapsec/status"
)

func testSA(t testing.TB, suite string, changes ...func(*sa.SA)) *sa.SA {
	t.Helper()
	su, err := sa.ParseSuite(sa.ESP, suite)
	if err != nil {
		t.Fatal(err)
	}
	s := &sa.SA{Name: suite, SPI: 0x1001, Protocol: sa.ESP, Mode: sa.Transport, Suite: su, PadCheck: true}
	s.EncryptionKey = sa.NewKey(bytes.Repeat([]byte{0x5a}, su.EncryptionKeyLen()))
	s.IntegrityKey = sa.NewKey(bytes.Repeat([]byte{0xa5}, su.IntegrityKeyLen()))
	for _, c := range changes {
		c(s)
	}
	return s
}

func withESN(s *sa.SA)     { s.ESN = true }
func withoutPads(s *sa.SA) { s.PadCheck = false }

func inbound(t testing.TB, s *sa.SA) *Inbound {
	t.Helper()
	in, err := NewInbound(s, 2)
	if err != nil {
		t.Fatal(err)
	}
	return in
}

// sealGCM is RFC 4106 by the standard library alone.
func sealGCM(s *sa.SA, number uint64, plain []byte) []byte {
	key := s.EncryptionKey.Bytes()
	block, err := aes.NewCipher(key[:16])
	if err != nil {
		panic(err)
	}
	gcm, err := cipher.NewGCM(block)
	if err != nil {
		panic(err)
	}
	head := binary.BigEndian.AppendUint32(nil, s.SPI)
	aad := bytes.Clone(head)
	head = binary.BigEndian.AppendUint32(head, uint32(number))
	if s.ESN {
		aad = binary.BigEndian.AppendUint64(aad, number)
	} else {
		aad = head
	}
	iv := []byte{8, 7, 6, 5, 4, 3, 2, 1}
	return gcm.Seal(append(bytes.Clone(head), iv...), append(bytes.Clone(key[16:]), iv...), plain, aad)
}

// sealNull is NULL with HMAC-SHA-256-128 by the standard library alone (RFC
// 4303 section 2.8: ESN's high half behind the payload).
func sealNull(s *sa.SA, number uint64, plain []byte) []byte {
	b := binary.BigEndian.AppendUint32(nil, s.SPI)
	b = append(binary.BigEndian.AppendUint32(b, uint32(number)), plain...)
	m := hmac.New(sha256.New, s.IntegrityKey.Bytes())
	m.Write(b)
	if s.ESN {
		m.Write(binary.BigEndian.AppendUint32(nil, uint32(number>>32)))
	}
	return append(b, m.Sum(nil)[:16]...)
}

// Packets that the standard library sealed open, with ESN and without, and
// header, IV and ICV stay as they are.
func TestOpenAgainstStandardLibrary(t *testing.T) {
	plain := append([]byte("twelve bytes"), 1, 2, 2, 17)
	const number = 7<<32 | 1
	for _, f := range []struct {
		sa     *sa.SA
		packet []byte
		iv     int
	}{
		{testSA(t, "aes128gcm16"), sealGCM(testSA(t, "aes128gcm16"), number, plain), 8},
		{testSA(t, "aes128gcm16", withESN), sealGCM(testSA(t, "aes128gcm16", withESN), number, plain), 8},
		{testSA(t, "null-sha256"), sealNull(testSA(t, "null-sha256"), number, plain), 0},
		{testSA(t, "null-sha256", withESN), sealNull(testSA(t, "null-sha256", withESN), number, plain), 0},
	} {
		var scratch Scratch
		want := bytes.Clone(f.packet)
		copy(want[HeaderLen+f.iv:], plain)
		o, reason := inbound(t, f.sa).Open(1, f.packet, number, &scratch)
		if reason != status.Verified || o != (Opened{Len: 12, PadLen: 2, NextHeader: 17}) {
			t.Errorf("%s, ESN %v: %s %+v", f.sa.Name, f.sa.ESN, reason, o)
		}
		if !bytes.Equal(f.packet, want) {
			t.Errorf("%s, ESN %v: % x\nwant % x", f.sa.Name, f.sa.ESN, f.packet, want)
		}
	}
}

// Every suite opens what it sealed, for each length of payload up to some
// blocks; a bit flipped anywhere, or another high half, leaves the packet as it
// was.
func TestOpenEverySuite(t *testing.T) {
	var scratch Scratch
	for _, su := range sa.Suites(sa.ESP) {
		s := testSA(t, su.Name, withESN)
		out, err := NewOutbound(s, bytes.NewReader(make([]byte, 1<<16)))
		if err != nil {
			t.Fatal(err)
		}
		in := inbound(t, s)
		for n := range 40 {
			payload := bytes.Repeat([]byte{byte(n)}, n)
			number := uint64(9)<<32 | uint64(n)
			packet, err := out.Seal(nil, payload, 4, number)
			if err != nil || len(packet) != out.Len(n) {
				t.Fatalf("%s: %v, %d bytes, Len says %d", su.Name, err, len(packet), out.Len(n))
			}
			if n == 5 {
				spoilt(t, in, packet, number, &scratch)
			}
			o, reason := in.Open(0, packet, number, &scratch)
			start := HeaderLen + su.IVLen
			if reason != status.Verified || o.Len != n || o.NextHeader != 4 || !bytes.Equal(packet[start:start+n], payload) {
				t.Errorf("%s, %d bytes: %s %+v", su.Name, n, reason, o)
			}
		}
	}
}

// Two packets never have one IV: AES-CBC's is random, and that of a suite with a counter is the 64-bit sequence number
// (RFC 4106 section 3.1). No more is padded than up to the next block.
func TestSealIV(t *testing.T) {
	const number, payload = 7<<32 | 9, "ten bytes."
	random := bytes.Repeat([]byte{0xc3}, 16)
	for _, su := range sa.Suites(sa.ESP) {
		out, err := NewOutbound(testSA(t, su.Name), bytes.NewReader(random))
		if err != nil {
			t.Fatal(err)
		}
		packet, err := out.Seal(nil, []byte(payload), 4, number)
		if err != nil {
			t.Fatal(err)
		}
		want := random[:su.IVLen]
		if su.IVLen == 8 && su.Cipher != sa.DESCBC && su.Cipher != sa.TripleDESCBC {
			want = binary.BigEndian.AppendUint64(nil, number)
		}
		if got := packet[HeaderLen:][:su.IVLen]; !bytes.Equal(got, want) {
			t.Errorf("%s: IV %x, want %x", su.Name, got, want)
		}
		text := (len(payload) + trailerLen + su.Block - 1) / su.Block * su.Block
		if n := HeaderLen + su.IVLen + text + su.ICVLen; len(packet) != n || out.Len(len(payload)) != n {
			t.Errorf("%s: %d bytes, and Len says %d, want %d", su.Name, len(packet), out.Len(len(payload)), n)
		}
	}
}

func spoilt(t *testing.T, in *Inbound, packet []byte, number uint64, scratch *Scratch) {
	t.Helper()
	attempt := func(number uint64) {
		t.Helper()
		b := bytes.Clone(packet)
		number = number&^0xffffffff | uint64(binary.BigEndian.Uint32(b[4:])) // the low half is the packet's
		if _, reason := in.Open(0, b, number, scratch); reason != status.ESPICV || !bytes.Equal(b, packet) {
			t.Errorf("%s: %s, or bytes were changed", in.sa.Suite.Name, reason)
		}
	}
	attempt(number + 1<<32)
	for i := range packet {
		packet[i] ^= 1
		attempt(number)
		packet[i] ^= 1
	}
}

// What is wrong behind a valid ICV, and what no packet can be long enough for.
func TestOpenReasons(t *testing.T) {
	strict, loose := testSA(t, "null-sha256"), testSA(t, "null-sha256", withoutPads)
	for _, f := range []struct {
		name          string
		plain         []byte
		strict, loose status.Reason
	}{
		{"no pad", []byte{9, 9, 0, 17}, status.Verified, status.Verified},
		{"all pad", []byte{1, 2, 2, 17}, status.Verified, status.Verified},
		{"zero pad", []byte{0, 0, 2, 17}, status.PadBytes, status.Verified},
		{"pad from 0", []byte{0, 1, 2, 17}, status.PadBytes, status.Verified},
		{"pad longer than all", []byte{1, 2, 3, 17}, status.PadLength, status.PadLength},
		{"pad of 255", append(make([]byte, 254), 255, 17), status.PadLength, status.PadLength},
		{"no trailer", nil, status.ESPLength, status.ESPLength},
		{"half a block", []byte{0, 17}, status.ESPLength, status.ESPLength},
		{"over a block", []byte{1, 2, 2, 17, 0}, status.ESPLength, status.ESPLength},
	} {
		for _, s := range []*sa.SA{strict, loose} {
			want := f.strict
			if s == loose {
				want = f.loose
			}
			packet := sealNull(s, 1, f.plain)
			before := bytes.Clone(packet)
			var scratch Scratch
			if _, got := inbound(t, s).Open(0, packet, 1, &scratch); got != want || !bytes.Equal(packet, before) {
				t.Errorf("%s, pads checked %v: %s, want %s", f.name, s.PadCheck, got, want)
			}
		}
	}
	in := inbound(t, strict)
	for n := range HeaderLen + 16 + 4 {
		var scratch Scratch
		if _, got := in.Open(0, make([]byte, n), 1, &scratch); got != status.ESPLength {
			t.Errorf("%d bytes: %s", n, got)
		}
	}
}

func TestNewInboundRefusesKeys(t *testing.T) {
	for _, name := range []string{"aes128gcm16", "aes128-sha256", "chacha20poly1305"} {
		s := testSA(t, name)
		s.EncryptionKey = sa.NewKey(make([]byte, 5))
		if _, err := NewInbound(s, 1); err == nil {
			t.Errorf("%s took a key of 5 bytes", name)
		}
	}
}

// FuzzOpen opens packets as they are, and plaintexts that were sealed rightly.
// No input panics; what fails is untouched; what opens agrees with a reading of
// its trailer from the end.
func FuzzOpen(f *testing.F) {
	f.Add([]byte("payload, 3 pads "+"\x01\x02\x02\x04"), true)
	f.Add([]byte{0, 0, 2, 59}, true)
	f.Add([]byte{0, 0, 200, 59}, true)
	f.Add(sealGCM(testSA(f, "aes128gcm16"), 1, []byte{1, 2, 2, 17}), false)
	var ins [2]*Inbound
	sas := [2]*sa.SA{testSA(f, "null-sha256"), testSA(f, "aes128gcm16")}
	for i, s := range sas {
		ins[i] = inbound(f, s)
	}
	var scratch Scratch
	f.Fuzz(func(t *testing.T, b []byte, seal bool) {
		if len(b) > 60000 {
			return
		}
		for i, s := range sas {
			packet := bytes.Clone(b)
			if seal && i == 0 {
				packet = sealNull(s, 1, b)
			} else if seal {
				packet = sealGCM(s, 1, b)
			}
			before := bytes.Clone(packet)
			o, reason := ins[i].Open(0, packet, 1, &scratch)
			if reason != status.Verified && !bytes.Equal(packet, before) {
				t.Fatalf("%s: %s, and bytes were changed", s.Name, reason)
			}
			if want := slowReason(b); seal && reason != want {
				t.Fatalf("%s: %s, want %s", s.Name, reason, want)
			}
			if reason == status.Verified && seal && (o.NextHeader != b[len(b)-1] || o.Len+int(o.PadLen)+2 != len(b)) {
				t.Fatalf("%s: %+v of % x", s.Name, o, b)
			}
		}
	})
}

// slowReason reads a plaintext that came behind a good ICV.
func slowReason(plain []byte) status.Reason {
	if len(plain) < 2 || len(plain)%4 != 0 {
		return status.ESPLength
	}
	rest, pad := plain[:len(plain)-2], int(plain[len(plain)-2])
	if pad > len(rest) {
		return status.PadLength
	}
	for want := pad; want > 0; want-- {
		if rest[len(rest)-1] != byte(want) {
			return status.PadBytes
		}
		rest = rest[:len(rest)-1]
	}
	return status.Verified
}
