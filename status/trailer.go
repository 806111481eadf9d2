package status

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"time"
)

// Lengths of the trailer's parts in bytes, version 1 (docs/trailer.md).
const (
	BaseLen    = 44                             // the fixed base, last in the frame
	RecordLen  = 40                             // one record in front of the base
	MaxRecords = 4                              // records in one trailer
	MaxTrailer = BaseLen + MaxRecords*RecordLen // the longest trailer
	MinFrame   = 60                             // a shorter frame is padded with zeros before its trailer
	Tailroom   = MinFrame + MaxTrailer          // spare capacity that annotating any frame can need
)

// TrailerVersion is the version of the trailer that is written and understood.
const TrailerVersion = 1

const (
	recordType = 1
	magic      = 0x43455354 // "TSEC" in the frame
)

// Form says what the delivered frame looks like.
type Form uint8

// The forms.
const (
	InPlace Form = 0 // wire layout and length, plaintext in place of ciphertext
	Decap   Form = 1 // portions that verified have been removed
)

// String names the form as the configuration does.
func (f Form) String() string {
	switch f {
	case InPlace:
		return "inplace"
	case Decap:
		return "decap"
	}
	return fmt.Sprintf("form(%d)", uint8(f))
}

// State says how far the NIC came with one IPsec header.
type State uint8

// The states of a record.
const (
	ICVValid     State = 1 // the ICV is valid, nothing else was wrong
	FailedBefore State = 2 // failed at or before the ICV; the number is unauthenticated
	FailedAfter  State = 3 // the ICV is valid, but a later check failed
	NotProcessed State = 4 // an SA matched, but its portion was left alone
)

var stateNames = [...]string{ICVValid: "icv-valid", FailedBefore: "failed", FailedAfter: "failed-after-icv", NotProcessed: "not-processed"}

// String names the state.
func (s State) String() string {
	if int(s) < len(stateNames) && stateNames[s] != "" {
		return stateNames[s]
	}
	return "unknown"
}

// Record is the account of one IPsec header for which an SA matched. Offsets
// count bytes from the first byte of the frame as delivered (of the wire frame
// in Decap form).
type Record struct {
	Portion  Portion
	Protocol uint8  // 50 ESP, 51 AH
	SPI      uint32 //
	Number   uint64 // sequence number with its high half
	Handle   uint32 // the NIC's handle of the SA, informative
	State    State
	Code     Code
	Reason   Reason

	IP         uint16 // offset of the IP header that the IPsec header belongs to
	IPsec      uint16 // offset of the AH or ESP header
	Payload    uint16 // offset of what lies after IV or AH
	PayloadLen uint16 // its bytes, without pad, pad length, next header and ICV

	IVLen, PadLen, ICVLen uint8 // bytes
	NextHeader            uint8 // 0 for ESP unless ICVValid
	DeleteSA              bool  // this SA's deletion is asked for
}

// Trailer is the annotation: what the NIC has to say of a frame. A transport in the same
// process gets this value; where a frame leaves the process it is encoded behind it.
type Trailer struct {
	Word     Word
	Reason   Reason
	Form     Form
	Removed  uint8  // portions removed in Decap form
	Omitted  uint8  // records for which there was no room
	Queue    uint16 // receive queue
	WireLen  uint32 // bytes received; between them and the trailer is padding
	Ordinal  uint64 // number of the frame on its queue, from 1
	Received int64  // nanoseconds since the Unix epoch at which the frame's batch was read
	N        uint8  // records in use

	Records [MaxRecords]Record // outermost first, AH before ESP
}

// Add appends a record, or counts it as omitted where there is no room.
func (t *Trailer) Add(r Record) {
	if int(t.N) == len(t.Records) {
		t.Omitted++
		return
	}
	t.Records[t.N] = r
	t.N++
}

// Time is Received as a time.
func (t *Trailer) Time() time.Time { return time.Unix(0, t.Received) }

// Len is the length of the encoded trailer in bytes.
func (t *Trailer) Len() int { return int(t.N)*RecordLen + BaseLen }

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// AppendTo appends the trailer to b: its records, then the base.
func (t *Trailer) AppendTo(b []byte) []byte {
	start := len(b)
	for i := range t.Records[:t.N] {
		b = t.Records[i].appendTo(b)
	}
	le := binary.LittleEndian
	b = le.AppendUint32(b, uint32(t.Word))
	b = le.AppendUint16(b, uint16(t.Reason))
	b = append(b, byte(t.Form), t.Removed, t.N, t.Omitted)
	b = le.AppendUint16(b, t.Queue)
	b = le.AppendUint32(b, t.WireLen)
	b = le.AppendUint64(b, t.Ordinal)
	b = le.AppendUint64(b, uint64(t.Received))
	b = le.AppendUint16(b, uint16(t.Len()))
	b = append(b, TrailerVersion, 0)
	b = le.AppendUint32(b, crc32.Checksum(b[start:], castagnoli))
	return le.AppendUint32(b, magic)
}

func (r *Record) appendTo(b []byte) []byte {
	le := binary.LittleEndian
	b = append(b, recordType, RecordLen, byte(r.Portion), r.Protocol)
	b = le.AppendUint32(b, r.SPI)
	b = le.AppendUint64(b, r.Number)
	b = le.AppendUint32(b, r.Handle)
	b = append(b, byte(r.State), byte(r.Code))
	b = le.AppendUint16(b, uint16(r.Reason))
	b = le.AppendUint16(b, r.IP)
	b = le.AppendUint16(b, r.IPsec)
	b = le.AppendUint16(b, r.Payload)
	b = le.AppendUint16(b, r.PayloadLen)
	var flags byte
	if r.DeleteSA {
		flags = 1
	}
	return append(b, r.IVLen, r.PadLen, r.ICVLen, r.NextHeader, flags, 0, 0, 0)
}

// Errors of Split.
var (
	ErrNoTrailer = errors.New("status: the frame ends in no trailer of version 1")
	ErrTrailer   = errors.New("status: the trailer's CRC or lengths are wrong")
)

// Split takes exactly one trailer off a delivered frame, and trusts nothing in it. body
// is the frame before it, with the padding to 60 bytes. Records of unknown types are
// skipped. The error is ErrNoTrailer or ErrTrailer.
func Split(frame []byte) (body []byte, t Trailer, err error) {
	le := binary.LittleEndian
	if len(frame) < BaseLen {
		return frame, t, ErrNoTrailer
	}
	base := frame[len(frame)-BaseLen:]
	if le.Uint32(base[40:]) != magic || base[34] != TrailerVersion {
		return frame, t, ErrNoTrailer
	}
	length := int(le.Uint16(base[32:]))
	if length < BaseLen || length > len(frame) {
		return frame, t, ErrTrailer
	}
	body = frame[:len(frame)-length]
	whole := frame[len(body):]
	if crc32.Checksum(whole[:length-8], castagnoli) != le.Uint32(base[36:]) {
		return frame, t, ErrTrailer
	}
	t.parseBase(base)
	if !t.parseRecords(whole[:length-BaseLen], base[8]) || int64(t.WireLen) > int64(len(body)) && t.Form == InPlace {
		return frame, Trailer{}, ErrTrailer
	}
	return body, t, nil
}

func (t *Trailer) parseBase(b []byte) {
	le := binary.LittleEndian
	t.Word = Word(le.Uint32(b))
	t.Reason = Reason(le.Uint16(b[4:]))
	t.Form, t.Removed, t.Omitted = Form(b[6]), b[7], b[9]
	t.Queue = le.Uint16(b[10:])
	t.WireLen = le.Uint32(b[12:])
	t.Ordinal = le.Uint64(b[16:])
	t.Received = int64(le.Uint64(b[24:]))
}

// parseRecords walks type, length, value. It reports whether that ends where the base
// begins, with as many records as the base says.
func (t *Trailer) parseRecords(b []byte, want byte) bool {
	for len(b) > 0 {
		if len(b) < 2 || b[1] < 2 || int(b[1]) > len(b) {
			return false
		}
		if b[0] == recordType {
			if b[1] != RecordLen || int(t.N) == MaxRecords {
				return false
			}
			t.Records[t.N].parse(b)
			t.N++
		}
		b = b[b[1]:]
	}
	return t.N == want
}

func (r *Record) parse(b []byte) {
	le := binary.LittleEndian
	*r = Record{
		Portion: Portion(b[2]), Protocol: b[3],
		SPI: le.Uint32(b[4:]), Number: le.Uint64(b[8:]), Handle: le.Uint32(b[16:]),
		State: State(b[20]), Code: Code(b[21]), Reason: Reason(le.Uint16(b[22:])),
		IP: le.Uint16(b[24:]), IPsec: le.Uint16(b[26:]),
		Payload: le.Uint16(b[28:]), PayloadLen: le.Uint16(b[30:]),
		IVLen: b[32], PadLen: b[33], ICVLen: b[34], NextHeader: b[35],
		DeleteSA: b[36]&1 != 0,
	}
}

// Annotate pads frame to 60 bytes and appends the trailer. It allocates only if the
// frame's spare capacity is less than Tailroom.
func Annotate(frame []byte, t *Trailer) []byte {
	for len(frame) < MinFrame {
		frame = append(frame, 0)
	}
	return t.AppendTo(frame)
}
