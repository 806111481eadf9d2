package sa

import (
	"slices"
	"strings"
	"testing"
)

func TestBitmap(t *testing.T) {
	for text, want := range map[string]Bitmap{
		"0x0": {0}, "0x1": {1}, "0xff": {255}, "0xffffffffffffffff": {1<<64 - 1},
		"0x10000000000000001": {1, 1}, "0x30000000000000000000000000000000f": {15, 0, 3},
	} {
		var b Bitmap
		if err := b.UnmarshalText([]byte(text)); err != nil || !slices.Equal(b, want) || b.String() != text {
			t.Errorf("%s: %v, %v, printed as %s", text, b, err, b)
		}
	}
	for _, text := range []string{"", "0x", "1", "ff", "0xg", "-0x1", "0x" + strings.Repeat("f", MaxWindow/4+1)} {
		var b Bitmap
		if err := b.UnmarshalText([]byte(text)); err == nil || b != nil {
			t.Errorf("%q: %v", text, b)
		}
	}
	b := Bitmap{1, 2, 0}
	for i, want := range map[int]bool{0: true, 1: false, 64: false, 65: true, 66: true, 1000: true} {
		if b.Has(i) != want {
			t.Errorf("bit %d", i)
		}
	}
	if b.Len() != 66 || (Bitmap{}).Len() != 0 || Bitmap(nil).Len() != 0 {
		t.Errorf("lengths %d, %d", b.Len(), Bitmap(nil).Len())
	}
	// Who knows nothing takes nothing.
	if !Bitmap(nil).Has(7) || Bitmap(nil).String() != "" {
		t.Error("no bitmap is not every bit")
	}
}
