package status

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func drawRecord(t *rapid.T) Record {
	u16 := rapid.Uint16()
	u8 := rapid.Uint8()
	return Record{
		Portion: Portion(u8.Draw(t, "portion")), Protocol: u8.Draw(t, "protocol"),
		SPI: rapid.Uint32().Draw(t, "spi"), Number: rapid.Uint64().Draw(t, "number"), Handle: rapid.Uint32().Draw(t, "handle"),
		State: State(u8.Draw(t, "state")), Code: Code(u8.Draw(t, "code")), Reason: Reason(u16.Draw(t, "reason")),
		IP: u16.Draw(t, "ip"), IPsec: u16.Draw(t, "ipsec"), Payload: u16.Draw(t, "payload"), PayloadLen: u16.Draw(t, "length"),
		IVLen: u8.Draw(t, "iv"), PadLen: u8.Draw(t, "pad"), ICVLen: u8.Draw(t, "icv"), NextHeader: u8.Draw(t, "next"),
		DeleteSA: rapid.Bool().Draw(t, "delete"),
	}
}

func drawTrailer(t *rapid.T) Trailer {
	tr := Trailer{
		Word: Word(rapid.Uint32().Draw(t, "word")), Reason: Reason(rapid.Uint16().Draw(t, "reason")),
		Form: Form(rapid.Uint8Max(1).Draw(t, "form")), Removed: rapid.Uint8().Draw(t, "removed"),
		Queue: rapid.Uint16().Draw(t, "queue"), WireLen: rapid.Uint32Max(60).Draw(t, "wire"),
		Ordinal: rapid.Uint64().Draw(t, "ordinal"), Received: rapid.Int64().Draw(t, "received"),
	}
	for range rapid.IntRange(0, MaxRecords+2).Draw(t, "records") {
		tr.Add(drawRecord(t))
	}
	return tr
}

// What is appended is what is split off, whatever lies in front of it.
func TestTrailerRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := drawTrailer(t)
		wire := rapid.SliceOfN(rapid.Byte(), 0, 100).Draw(t, "frame")
		want.WireLen = uint32(len(wire))
		frame := Annotate(slices.Clone(wire), &want)
		body, got, err := Split(frame)
		if err != nil || got != want {
			t.Fatalf("%+v, %v, expected %+v", got, err, want)
		}
		padding := make([]byte, max(0, MinFrame-len(wire)))
		if !bytes.Equal(body, append(slices.Clone(wire), padding...)) {
			t.Fatalf("body % x of frame % x", body, wire)
		}
		if n := len(frame) - len(body); n != want.Len() || n > MaxTrailer {
			t.Fatalf("%d bytes, Len says %d", n, want.Len())
		}
	})
}

// The first four records are kept and the others counted.
func TestTrailerAdd(t *testing.T) {
	var tr Trailer
	for i := range uint32(7) {
		tr.Add(Record{SPI: i})
	}
	if tr.N != MaxRecords || tr.Omitted != 3 || tr.Records[3].SPI != 3 || tr.Len() != MaxTrailer {
		t.Errorf("%+v", tr)
	}
}

func TestTrailerDoesNotAllocate(t *testing.T) {
	tr := Trailer{N: MaxRecords}
	buf := make([]byte, 20, 20+Tailroom)
	var sink Trailer
	if n := testing.AllocsPerRun(100, func() {
		frame := Annotate(buf, &tr)
		_, sink, _ = Split(frame)
	}); n != 0 || sink.N != MaxRecords {
		t.Errorf("Annotate and Split allocate %v times, %d records", n, sink.N)
	}
}

// A frame that came in with a trailer of its own is answered by ours, and Split
// takes exactly one off.
func TestSplitTakesOne(t *testing.T) {
	forged := Trailer{Word: CryptoDone | NextCryptoDone, Reason: Verified, N: 2}
	ours := Trailer{Reason: NoSA, WireLen: uint32(MinFrame + forged.Len())}
	wire := Annotate(make([]byte, MinFrame), &forged)
	body, got, err := Split(Annotate(slices.Clone(wire), &ours))
	if err != nil || got != ours || !bytes.Equal(body, wire) {
		t.Errorf("%+v, %v, %d bytes left of %d", got, err, len(body), len(wire))
	}
	if _, got, err = Split(body); err != nil || got != forged {
		t.Errorf("the one below: %+v, %v", got, err)
	}
}

func fullFrame() []byte {
	tr := Trailer{Word: CryptoDone, Reason: Verified, Ordinal: 1, WireLen: 64}
	for spi := range uint32(MaxRecords) {
		tr.Add(Record{SPI: spi, Protocol: 50, Portion: TunnelPortion})
	}
	return Annotate(bytes.Repeat([]byte{0xa5}, 64), &tr)
}

// Every frame cut short, from either end, is refused, and comes back whole.
func TestSplitRefusesCuts(t *testing.T) {
	frame := fullFrame()
	for n := range frame {
		if body, tr, err := Split(frame[:n]); err == nil || len(body) != n || tr != (Trailer{}) {
			t.Errorf("the first %d bytes: %d left, %v", n, len(body), err)
		}
	}
	for n := 1; n < MaxTrailer+64; n++ {
		if _, _, err := Split(frame[len(frame)-n:]); err == nil {
			t.Errorf("the last %d bytes were taken", n)
		}
	}
}

// CRC-32C finds every single flipped bit.
func TestSplitRefusesFlips(t *testing.T) {
	frame := fullFrame()
	for bit := range 8 * MaxTrailer {
		at := len(frame) - 1 - bit/8
		frame[at] ^= 1 << (bit % 8)
		if _, tr, err := Split(frame); err == nil || tr != (Trailer{}) {
			t.Errorf("bit %d of byte %d from the end: %v", bit%8, bit/8, err)
		}
		frame[at] ^= 1 << (bit % 8)
	}
}

// craft makes a trailer of any records and base, with a CRC that is right.
func craft(body, records []byte, change func(base []byte)) []byte {
	var tr Trailer
	base := tr.AppendTo(nil)
	binary.LittleEndian.PutUint16(base[32:], uint16(len(records)+BaseLen))
	if change != nil {
		change(base)
	}
	whole := append(slices.Clone(records), base...)
	binary.LittleEndian.PutUint32(whole[len(whole)-8:], crc32.Checksum(whole[:len(whole)-8], crc32.MakeTable(crc32.Castagnoli)))
	return append(slices.Clone(body), whole...)
}

// Whatever a trailer with a good CRC claims, nothing is read outside of it, and
// what does not add up is refused.
func TestSplitCrafted(t *testing.T) {
	known := (&Record{SPI: 7}).appendTo(nil)
	unknown := []byte{200, 5, 1, 2, 3}
	count := func(n byte) func([]byte) { return func(base []byte) { base[8] = n } }
	le := binary.LittleEndian
	for _, c := range []struct {
		name    string
		records []byte
		change  func(base []byte)
		want    error
		n       uint8
	}{
		{"nothing", nil, nil, nil, 0},
		{"one record", known, count(1), nil, 1},
		{"unknown records are skipped", slices.Concat(unknown, known, []byte{9, 2}, unknown), count(1), nil, 1},
		{"only unknown records", unknown, nil, nil, 0},
		{"fewer records than said", known, count(2), ErrTrailer, 0},
		{"more records than said", slices.Concat(known, known), count(1), ErrTrailer, 0},
		{"five records", bytes.Repeat(known, 5), count(5), ErrTrailer, 0},
		{"record of length 0", []byte{200, 0}, nil, ErrTrailer, 0},
		{"record of length 1", []byte{200, 1, 0}, nil, ErrTrailer, 0},
		{"record beyond the base", []byte{200, 9, 0}, nil, ErrTrailer, 0},
		{"half a record head", []byte{200}, nil, ErrTrailer, 0},
		{"a record of nothing but its head", []byte{200, 2}, nil, nil, 0},
		{"known type, other length", append([]byte{recordType, RecordLen + 1}, make([]byte, RecordLen-1)...), count(1), ErrTrailer, 0},
		{"version 0", nil, func(b []byte) { b[34] = 0 }, ErrNoTrailer, 0},
		{"version 2", nil, func(b []byte) { b[34] = 2 }, ErrNoTrailer, 0},
		{"other magic", nil, func(b []byte) { b[40]++ }, ErrNoTrailer, 0},
		{"length below the base", nil, func(b []byte) { le.PutUint16(b[32:], BaseLen-1) }, ErrTrailer, 0},
		{"length beyond the frame", nil, func(b []byte) { le.PutUint16(b[32:], 999) }, ErrTrailer, 0},
		{"wire length beyond the body", nil, func(b []byte) { le.PutUint32(b[12:], 61) }, ErrTrailer, 0},
		{"wire length with its top bit", nil, func(b []byte) { le.PutUint32(b[12:], 1<<31) }, ErrTrailer, 0},
		{"wire length of a decap frame", nil, func(b []byte) { le.PutUint32(b[12:], 61); b[6] = byte(Decap) }, nil, 0},
		{"reserved bytes", nil, func(b []byte) { b[35] = 9 }, nil, 0},
	} {
		frame := craft(make([]byte, MinFrame), c.records, c.change)
		body, tr, err := Split(frame)
		if !errors.Is(err, c.want) || tr.N != c.n {
			t.Errorf("%s: %v, %d records, expected %v, %d", c.name, err, tr.N, c.want, c.n)
		}
		if err == nil && len(body) != MinFrame || err != nil && len(body) != len(frame) {
			t.Errorf("%s: %d bytes of %d left", c.name, len(body), len(frame))
		}
	}
}

// A trailer may stand alone: whatever cut the frame, it can be read.
func TestSplitOfTheBaseAlone(t *testing.T) {
	base := craft(nil, nil, func(b []byte) { clear(b[12:16]) })
	if len(base) != BaseLen {
		t.Fatalf("%d bytes", len(base))
	}
	if body, _, err := Split(base); err != nil || len(body) != 0 {
		t.Errorf("%d bytes left, %v", len(body), err)
	}
	if body, _, err := Split(base[1:]); err != ErrNoTrailer || len(body) != BaseLen-1 {
		t.Errorf("cut: %d bytes left, %v", len(body), err)
	}
}

func TestTrailerTime(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC)
	if tr := (Trailer{Received: at.UnixNano()}); !tr.Time().Equal(at) {
		t.Errorf("%v", tr.Time())
	}
}

// FuzzSplit: never a panic; what is accepted, encoded again, means the same.
func FuzzSplit(f *testing.F) {
	f.Add(fullFrame())
	f.Add(craft(make([]byte, MinFrame), []byte{200, 5, 1, 2, 3}, nil))
	f.Add(craft(nil, []byte{200}, nil))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, frame []byte) {
		check := func(frame []byte) {
			body, tr, err := Split(frame)
			if err != nil {
				if len(body) != len(frame) || tr != (Trailer{}) {
					t.Fatalf("refused, but %d of %d bytes and %+v", len(body), len(frame), tr)
				}
				return
			}
			again := tr.AppendTo(slices.Clone(body))
			if b, tr2, err := Split(again); err != nil || tr2 != tr || !bytes.Equal(b, body) {
				t.Fatalf("%+v became %+v, %v", tr, tr2, err)
			}
		}
		check(frame)
		if len(frame) >= BaseLen { // mend magic and CRC, which a fuzzer does not guess
			mended := slices.Clone(frame)
			end := mended[len(mended)-BaseLen:]
			binary.LittleEndian.PutUint32(end[40:], magic)
			end[34] = TrailerVersion
			length := int(binary.LittleEndian.Uint16(end[32:]))
			if length >= BaseLen && length <= len(mended) {
				whole := mended[len(mended)-length:]
				binary.LittleEndian.PutUint32(end[36:], crc32.Checksum(whole[:length-8], castagnoli))
			}
			check(mended)
		}
	})
}

// A form that nobody knows shows as what it is.
func TestFormOfNothing(t *testing.T) {
	if got := Form(2).String(); got != "form(2)" {
		t.Error(got)
	}
}

// A trailer of ours that says it were shorter than its base is none, though its CRC
// be right.
func TestSplitShorterThanBase(t *testing.T) {
	for n := range BaseLen {
		b := (&Trailer{}).AppendTo(make([]byte, MinFrame))
		binary.LittleEndian.PutUint16(b[len(b)-12:], uint16(n))
		if n >= 8 {
			binary.LittleEndian.PutUint32(b[len(b)-8:], crc32.Checksum(b[len(b)-n:len(b)-8], castagnoli))
		}
		if body, _, err := Split(b); err != ErrTrailer || len(body) != len(b) {
			t.Errorf("%d bytes: %v", n, err)
		}
	}
}
