package mac

import (
	"bytes"
	"testing"

	"tapsec/test/testkit"
)

// wycheproofGroup is what the files of type MacTest and MacWithIvTest share.
type wycheproofGroup struct {
	IVSize  int `json:"ivSize"`
	KeySize int `json:"keySize"`
	TagSize int `json:"tagSize"`
	Tests   []struct {
		TcID                       int
		Key, IV, Msg, Tag, Comment string
		Result                     string
	}
}

func TestWycheproof(t *testing.T) {
	for name, file := range map[string]string{
		"hmac-sha1":   "hmac_sha1_test.json",
		"hmac-sha256": "hmac_sha256_test.json",
		"hmac-sha384": "hmac_sha384_test.json",
		"hmac-sha512": "hmac_sha512_test.json",
		"cmac":        "aes_cmac_test.json",
		"gmac":        "aes_gmac_test.json",
	} {
		t.Run(name, func(t *testing.T) {
			ran := 0
			for _, group := range testkit.Wycheproof[wycheproofGroup](t, file) {
				if group.IVSize != 0 && group.IVSize != 96 {
					continue // IPsec's GMAC has a nonce of 12 bytes
				}
				for _, test := range group.Tests {
					ran++
					key, tag := testkit.Unhex(t, test.Key), testkit.Unhex(t, test.Tag)
					valid := false
					if h, err := keyed[name](key); err == nil {
						if group.IVSize != 0 {
							h = gmacAt(t, key, testkit.Unhex(t, test.IV))
						}
						h.Write(testkit.Unhex(t, test.Msg))
						valid = bytes.Equal(h.Sum(nil)[:group.TagSize/8], tag)
					}
					if valid != (test.Result == "valid") {
						t.Errorf("%d (%s): valid %v, want %s", test.TcID, test.Comment, valid, test.Result)
					}
				}
			}
			if ran < 100 {
				t.Errorf("only %d tests ran", ran)
			}
		})
	}
}

// gmacAt returns GMAC under a nonce of salt | IV.
func gmacAt(t *testing.T, key, nonce []byte) *GMAC {
	t.Helper()
	g, err := NewGMAC(key, nonce[:GMACSaltSize])
	if err != nil {
		t.Fatal(err)
	}
	g.SetIV(nonce[GMACSaltSize:])
	return g
}
