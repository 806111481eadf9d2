package esp

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io/fs"
	"testing"

	"github.com/c2sp/wycheproof"
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
			data, err := fs.ReadFile(wycheproof.TestVectors, f.file)
			if err != nil {
				t.Fatal(err)
			}
			var all struct{ TestGroups []wycheproofGroup }
			if err := json.Unmarshal(data, &all); err != nil {
				t.Fatal(err)
			}
			ran := 0
			for _, g := range all.TestGroups {
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
		nonce := unhex(t, test.IV)
		a, err := newNamed(suite, unhex(t, test.Key), nonce[:salt], nil)
		if err != nil {
			t.Fatal(err)
		}
		aad, text := unhex(t, test.AAD), unhex(t, test.Msg)
		sealed := unhex(t, test.CT+test.Tag)
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
