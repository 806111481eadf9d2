package sa

import (
	"cmp"
	"fmt"
	"math/bits"
	"strconv"
	"strings"
)

// Bitmap says which numbers were received, counted down from the highest: bit 0 of word 0
// stands for that one, bit 1 for the one before it, bit 0 of word 1 for the one 64 before
// it. Numbers beyond the last bit that is set may have been received; with nil, any.
type Bitmap []uint64

// Has reports whether the number that is i below the highest may have been received.
func (b Bitmap) Has(i int) bool { return i >= b.Len() || b[i/64]>>(i%64)&1 != 0 }

// Len is the number of bits up to the highest one that is set.
func (b Bitmap) Len() int {
	for i := len(b) - 1; i >= 0; i-- {
		if b[i] != 0 {
			return i*64 + bits.Len64(b[i])
		}
	}
	return 0
}

// String is one hexadecimal number after 0x; empty for nil.
func (b Bitmap) String() string {
	if b == nil {
		return ""
	}
	var digits strings.Builder
	for i := len(b) - 1; i >= 0; i-- {
		fmt.Fprintf(&digits, "%016x", b[i])
	}
	significant := cmp.Or(strings.TrimLeft(digits.String(), "0"), "0")
	return "0x" + significant
}

// MarshalText writes String.
func (b Bitmap) MarshalText() ([]byte, error) { return []byte(b.String()), nil }

// UnmarshalText reads a hexadecimal number after 0x of at most MaxWindow bits.
func (b *Bitmap) UnmarshalText(text []byte) error {
	digits, hex := strings.CutPrefix(string(text), "0x")
	if !hex || digits == "" || len(digits) > MaxWindow/4 {
		return errBitmap
	}
	var read Bitmap
	for end := len(digits); end > 0; end -= 16 {
		word, err := strconv.ParseUint(digits[max(end-16, 0):end], 16, 64)
		if err != nil {
			return errBitmap
		}
		read = append(read, word)
	}
	*b = read
	return nil
}

var errBitmap = fmt.Errorf("expected a hexadecimal number like 0xff of at most %d bits", MaxWindow)
