package inspect

import "testing"

// Counts of any size stay in their column.
func TestShort(t *testing.T) {
	for n, want := range map[uint64]string{0: "0", 999999: "999999", 1000000: "1000k", 123456789: "123M", 1<<64 - 1: "18446P"} {
		if got := short(n); got != want || len(got) > 6 {
			t.Errorf("%d: %s, want %s", n, got, want)
		}
	}
}
