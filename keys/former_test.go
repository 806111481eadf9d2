package keys_test

import (
	"fmt"
	"strings"
	"testing"

	"tapsec/keys"
)

// A text may give one identity several keys. One is in use, and the others are not
// lost: what replaces the one before it, and what is left out beside it.
func TestFormer(t *testing.T) {
	state := "src 192.0.2.1 dst 192.0.2.2\n\tproto esp spi 0x00001001 reqid 1 mode tunnel\n\taead rfc4106(gcm(aes)) 0x%s 128\n"
	first, second := fmt.Sprintf(state, strings.Repeat("11", 20)), fmt.Sprintf(state, strings.Repeat("22", 20))
	for _, c := range []struct {
		text      string
		used, old byte
	}{
		{first + second, 0x22, 0x11}, // ip lists the newest first; the oldest is read first
		{"Updated " + first + "Updated " + second, 0x22, 0x11},
	} {
		read, err := keys.Read("x", []byte(c.text))
		if err != nil || len(read.All) != 1 || len(read.Former) != 1 {
			t.Fatalf("%+v, %v", read, err)
		}
		used, old := read.All[0].EncryptionKey.Bytes()[0], read.Former[0].EncryptionKey.Bytes()[0]
		if used != c.used || old != c.old || read.Former[0].ID() != read.All[0].ID() {
			t.Errorf("%q: key %x is used and %x is not", c.text[:8], used, old)
		}
	}
}
