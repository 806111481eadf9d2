package esp

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"fmt"
	"testing"

	"tapsec/test/testkit"
)

// TestWycheproof runs the groups that ESP's nonce and ICV lengths occur in. The
// nonce begins with the salt, 3 bytes for CCM and 4 for the others.
func TestWycheproof(t *testing.T) {
	for _, f := range []struct {
		file, suite string
		salt, least int
	}{
		{"aes_gcm_test.json", "aes-gcm-%d", 4, 150},
		{"aes_ccm_test.json", "aes-ccm-%d", 3, 18},
		{"chacha20_poly1305_test.json", "chacha20-poly1305-%d", 4, 300},
	} {
		t.Run(f.file, func(t *testing.T) {
			ran := 0
			for _, g := range testkit.Wycheproof[wycheproofGroup](t, f.file) {
				if g.IVSize == 8*(f.salt+ivSize) {
					ran += g.run(t, fmt.Sprintf(f.suite, g.TagSize/8), f.salt)
				}
			}
			if ran < f.least {
				t.Errorf("only %d tests ran", ran)
			}
		})
	}
}

type wycheproofGroup struct {
	IVSize  int `json:"ivSize"`
	TagSize int `json:"tagSize"`
	Tests   []struct {
		TcID                                        int
		Key, IV, AAD, Msg, CT, Tag, Comment, Result string
	}
}

// run returns how many tests it ran.
func (g wycheproofGroup) run(t *testing.T, suite string, salt int) int {
	for _, test := range g.Tests {
		nonce := testkit.Unhex(t, test.IV)
		a, err := newNamed(suite, testkit.Unhex(t, test.Key), nonce[:salt], nil)
		if err != nil {
			t.Fatal(err)
		}
		aad, text := testkit.Unhex(t, test.AAD), testkit.Unhex(t, test.Msg)
		sealed := testkit.Unhex(t, test.CT+test.Tag)
		got, err := a.Open(nil, nonce[salt:], sealed, aad)
		if valid := err == nil && bytes.Equal(got, text); valid != (test.Result == "valid") {
			t.Errorf("%s %d (%s): %v, want %s", suite, test.TcID, test.Comment, err, test.Result)
		}
		if test.Result == "valid" && !bytes.Equal(a.Seal(nil, nonce[salt:], text, aad), sealed) {
			t.Errorf("%s %d (%s): sealed to something else", suite, test.TcID, test.Comment)
		}
	}
	return len(g.Tests)
}

// Wycheproof has no GCM tag shorter than 16 bytes with ESP's nonce. Cut, its tags
// judge the shorter ones: what is valid stays so, and a tag is valid where its
// first bytes are those of Go's own GCM.
func TestWycheproofShortGCM(t *testing.T) {
	ran := 0
	for _, g := range testkit.Wycheproof[wycheproofGroup](t, "aes_gcm_test.json") {
		if g.IVSize != 96 || g.TagSize != 128 {
			continue
		}
		for _, test := range g.Tests {
			ran++
			key, nonce, aad, ct, tag := testkit.Unhex(t, test.Key), testkit.Unhex(t, test.IV), testkit.Unhex(t, test.AAD), testkit.Unhex(t, test.CT), testkit.Unhex(t, test.Tag)
			block, err := aes.NewCipher(key)
			if err != nil {
				t.Fatal(err)
			}
			gcm, err := cipher.NewGCM(block)
			if err != nil {
				t.Fatal(err)
			}
			text := gcm.Seal(nil, nonce, ct, nil)[:len(ct)]
			sealed := gcm.Seal(nil, nonce, text, aad)
			for _, n := range []int{8, 12} {
				a, err := newNamed(fmt.Sprintf("aes-gcm-%d", n), key, nonce[:4], nil)
				if err != nil {
					t.Fatal(err)
				}
				got, err := a.Open(nil, nonce[4:], append(bytes.Clone(ct), tag[:n]...), aad)
				valid, want := err == nil && bytes.Equal(got, text), bytes.Equal(tag[:n], sealed[len(ct):][:n])
				if valid != want || test.Result == "valid" && !valid {
					t.Errorf("%d, tag of %d (%s): %v, want valid %v", test.TcID, n, test.Comment, err, want)
				}
			}
		}
	}
	if ran < 150 {
		t.Errorf("only %d tests ran", ran)
	}
}

// CBC is Go's; its padding there is PKCS 5, which is none of ESP's, so that only
// valid tests say something.
func TestWycheproofCBC(t *testing.T) {
	aad := make([]byte, 8) // of its length for ESP; without a MAC nothing covers it
	ran := 0
	for _, g := range testkit.Wycheproof[wycheproofGroup](t, "aes_cbc_pkcs5_test.json") {
		for _, test := range g.Tests {
			if test.Result != "valid" {
				continue
			}
			ran++
			a, err := newNamed("aes-cbc", testkit.Unhex(t, test.Key), nil, nil)
			if err != nil {
				t.Fatal(err)
			}
			iv, ct, text := testkit.Unhex(t, test.IV), testkit.Unhex(t, test.CT), testkit.Unhex(t, test.Msg)
			pad := aes.BlockSize - len(text)%aes.BlockSize
			text = append(text, bytes.Repeat([]byte{byte(pad)}, pad)...)
			if got, err := a.Open(nil, iv, ct, aad); err != nil || !bytes.Equal(got, text) {
				t.Errorf("%d (%s): opened %x, %v", test.TcID, test.Comment, got, err)
			}
			if got := a.Seal(nil, iv, text, aad); !bytes.Equal(got, ct) {
				t.Errorf("%d (%s): sealed %x", test.TcID, test.Comment, got)
			}
		}
	}
	if ran < 30 {
		t.Errorf("only %d tests ran", ran)
	}
}
