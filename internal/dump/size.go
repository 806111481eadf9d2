package dump

import (
	"fmt"
	"strconv"
	"strings"

	"tapsec/sa"
)

// Size is a number of bytes; its text may end in k, M or G, for 2^10, 2^20 and
// 2^30.
type Size int64

const least = 1 << 16 // the head and the longest frame

// MarshalText returns the number.
func (s Size) MarshalText() ([]byte, error) { return strconv.AppendInt(nil, int64(s), 10), nil }

// UnmarshalText takes a number and its unit.
func (s *Size) UnmarshalText(text []byte) error {
	digits, shift := string(text), 0
	for i, unit := range []string{"k", "M", "G"} {
		if cut, ok := strings.CutSuffix(digits, unit); ok {
			digits, shift = cut, 10*(i+1)
			break
		}
	}
	n, err := strconv.ParseInt(digits, 10, 32)
	if err != nil || n<<shift < least {
		return fmt.Errorf("expected bytes, at least 64k, such as 100M, found %s", sa.Quote(string(text)))
	}
	*s = Size(n << shift)
	return nil
}
