package ledger

import (
	"bytes"
	"encoding/json"
	"fmt"
	"hash/crc32"
	"iter"
)

// Each line ends with a sum, which a fault would have to hit as well: the CRC-32C of all
// lines so far, but the header's, without their sums. So none is altered, missing, twice
// or in another place. The header's is of that line alone, which is written over again.
//
//	{"ledger":3,"boot":"...","size":            1234,"sum":"00112233"}
//	{"out":"...","sa":"...","seen":"...","next":65,"sum":"44556677"}
const sumLen = len(`,"sum":"00112233"}`) + 1

// header is the first line.
type header struct {
	Version int    `json:"ledger"`
	Boot    string `json:"boot"`           // names the run of the kernel whose clock the records use
	Size    int64  `json:"size,omitempty"` // bytes of the file that are relied on
	Sum     string `json:"sum,omitempty"`
}

// line is the header as it is written: always as long.
func (h header) line() []byte {
	text := fmt.Appendf(nil, `{"ledger":%d,"boot":%q,"size":%16d`, h.Version, h.Boot, h.Size)
	return appendSum(text, crc32.Checksum(text, castagnoli))
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// appendSum ends an object that has no end yet.
func appendSum(text []byte, sum uint32) []byte {
	return fmt.Appendf(text, `,"sum":"%08x"}`+"\n", sum)
}

// appendLines appends records, of which the first follows lines with that sum, and returns
// that of the last.
func appendLines(w *bytes.Buffer, sum uint32, records iter.Seq[record], flush func() error) (uint32, error) {
	e := json.NewEncoder(w)
	for r := range records {
		at := w.Len()
		if err := e.Encode(&r); err != nil {
			return sum, err
		}
		w.Truncate(w.Len() - len("}\n"))
		sum = crc32.Update(sum, castagnoli, w.Bytes()[at:])
		w.Write(appendSum(w.AvailableBuffer(), sum))
		if w.Len() < largest {
			continue
		}
		if err := flush(); err != nil {
			return sum, err
		}
	}
	return sum, flush()
}

// whole returns the lines whose sums are right, from the first on, and how many these are.
func whole(lines []byte) (text []byte, n int) {
	var scratch []byte
	for sum, rest := uint32(0), lines; ; n++ {
		end := bytes.IndexByte(rest, '\n') + 1
		body := max(end-sumLen, 0)
		sum = crc32.Update(sum, castagnoli, rest[:body])
		if scratch = appendSum(scratch[:0], sum); !bytes.Equal(rest[body:end], scratch) {
			return lines[:len(lines)-len(rest)], n
		}
		rest = rest[end:]
	}
}
