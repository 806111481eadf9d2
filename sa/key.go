package sa

import (
	"crypto/subtle"
	"encoding/hex"
	"fmt"
	"io"
	"strings"
)

// Key is secret bytes. Formatting, logging or encoding one shows only how many. The zero
// Key is empty.
type Key struct {
	// Two pointers keep the bytes from fmt even when it reaches a Key through an
	// unexported field, and cannot call its methods. With one, a verb that does not
	// fit, such as %s, shows what the pointer points to.
	secret **[]byte
}

// NewKey makes a Key of a copy of b.
func NewKey(b []byte) Key {
	own := new(append([]byte(nil), b...))
	return Key{&own}
}

// ParseKey reads hexadecimal digits, with or without 0x. The error does not quote them.
func ParseKey(s string) (Key, error) {
	digits := strings.TrimPrefix(s, "0x")
	if digits == s {
		digits = strings.TrimPrefix(s, "0X")
	}
	b, err := hex.DecodeString(digits)
	if _, other := err.(hex.InvalidByteError); other {
		return Key{}, fmt.Errorf("expected hexadecimal digits, found something else among %d characters", len(digits))
	}
	if err != nil || len(b) == 0 {
		return Key{}, fmt.Errorf("expected an even number of hexadecimal digits, found %d characters", len(digits))
	}
	return NewKey(b), nil
}

// Bytes is the secret itself. The caller must not change it.
func (k Key) Bytes() []byte {
	if k.secret == nil {
		return nil
	}
	return **k.secret
}

// Len is the number of bytes.
func (k Key) Len() int { return len(k.Bytes()) }

// Equal compares in constant time.
func (k Key) Equal(o Key) bool { return subtle.ConstantTimeCompare(k.Bytes(), o.Bytes()) == 1 }

// String gives the length only.
func (k Key) String() string { return fmt.Sprintf("<key, %d bytes>", k.Len()) }

// Format writes String for every verb.
func (k Key) Format(f fmt.State, _ rune) { io.WriteString(f, k.String()) }

// MarshalText writes String, so that neither JSON nor YAML ever holds the key.
func (k Key) MarshalText() ([]byte, error) { return []byte(k.String()), nil }

// Redacted reports whether a key is all zeros, as from a kernel that hides keys
// (kernel_lockdown(7)).
func (k Key) Redacted() bool {
	for _, b := range k.Bytes() {
		if b != 0 {
			return false
		}
	}
	return k.Len() > 0
}
