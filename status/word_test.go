package status

import (
	"testing"

	"pgregory.net/rapid"
)

// Contract, The word: bits and values are those of NDIS.
func TestWord(t *testing.T) {
	for _, c := range []struct {
		word               Word
		text               string
		done, next, delete bool
		code               Code
		name               string
		one, two           bool // Verified(1), Verified(2)
	}{
		{0, "00000000", false, false, false, 0, "CRYPTO_SUCCESS", false, false},
		{1, "00000001", false, false, true, 0, "CRYPTO_SUCCESS", false, false},
		{2, "00000002", true, false, false, 0, "CRYPTO_SUCCESS", true, false},
		{3, "00000003", true, false, true, 0, "CRYPTO_SUCCESS", true, false},
		{4, "00000004", false, true, false, 0, "CRYPTO_SUCCESS", false, false},
		{6, "00000006", true, true, false, 0, "CRYPTO_SUCCESS", true, true},
		{0x00010002, "00010002", true, false, false, 1, "CRYPTO_GENERIC_ERROR", false, false},
		{0x00020006, "00020006", true, true, false, 2, "CRYPTO_TRANSPORT_AH_AUTH_FAILED", false, false},
		{0x00030007, "00030007", true, true, true, 3, "CRYPTO_TRANSPORT_ESP_AUTH_FAILED", false, false},
		{0x00040002, "00040002", true, false, false, 4, "CRYPTO_TUNNEL_AH_AUTH_FAILED", false, false},
		{0x00050002, "00050002", true, false, false, 5, "CRYPTO_TUNNEL_ESP_AUTH_FAILED", false, false},
		{0x00060002, "00060002", true, false, false, 6, "CRYPTO_INVALID_PACKET_SYNTAX", false, false},
		{0x00070002, "00070002", true, false, false, 7, "CRYPTO_INVALID_PROTOCOL", false, false},
		{0x00080002, "00080002", true, false, false, 8, "CRYPTO_UNKNOWN_8", false, false},
	} {
		w := c.word
		if w.Done() != c.done || w.Next() != c.next || w.DeleteSA() != c.delete || w.Code() != c.code {
			t.Errorf("%s: done %v next %v delete %v code %d", w, w.Done(), w.Next(), w.DeleteSA(), w.Code())
		}
		if w.String() != c.text || w.Code().String() != c.name {
			t.Errorf("%#x is %q with %q, expected %q with %q", uint32(w), w, w.Code(), c.text, c.name)
		}
		if w.Verified(1) != c.one || w.Verified(2) != c.two {
			t.Errorf("%s: Verified(1) %v, Verified(2) %v", w, w.Verified(1), w.Verified(2))
		}
	}
}

func TestWordVerifiedPanics(t *testing.T) {
	for _, n := range []int{-1, 0, 3} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("Verified(%d) returned", n)
				}
			}()
			Word(2).Verified(n)
		}()
	}
}

// WithCode replaces the code and nothing else.
func TestWordWithCode(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w, c := Word(rapid.Uint32().Draw(t, "word")), Code(rapid.Uint16().Draw(t, "code"))
		if got := w.WithCode(c); got.Code() != c || got&0xffff != w&0xffff {
			t.Fatalf("%s.WithCode(%d) = %s", w, c, got)
		}
	})
}
