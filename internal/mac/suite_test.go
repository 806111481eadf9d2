package mac

import (
	"bytes"
	"testing"

	"tapsec/sa"
)

// Every suite's integrity algorithm takes a key of its length, and no other.
func TestNew(t *testing.T) {
	for _, su := range sa.Suites(sa.AH) {
		right := su.IntegrityKeyLen()
		key := bytes.Repeat([]byte{7}, right+1)
		for _, n := range []int{0, right - 1, right, right + 1} {
			if _, err := New(su, sa.NewKey(key[:n])); (err == nil) != (n == right) {
				t.Errorf("%s, %d bytes of key: %v", su.Name, n, err)
			}
		}
	}
	if _, err := New(sa.Suite{Name: "none"}, sa.Key{}); err == nil {
		t.Error("a suite without an integrity algorithm was keyed")
	}
}
