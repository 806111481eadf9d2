package linux

import (
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"tapsec/internal/account"
	"tapsec/test/program"
)

// keyText is a key in the text of a state.
var keyText = regexp.MustCompile(`0x[0-9a-f]{32,}`)

// spoiled are ways to spoil the text of SAs, each with the causes that `replay` is to
// give for SAs that then fail or match no more.
var spoiled = []struct {
	name    string
	spoil   func(text string) string
	certain bool
	causes  []string
}{
	{"nothing", func(s string) string { return s }, false, nil},
	{"keys reversed", func(s string) string {
		return keyText.ReplaceAllStringFunc(s, func(key string) string {
			b, _ := hex.DecodeString(key[2:])
			slices.Reverse(b)
			return "0x" + hex.EncodeToString(b)
		})
	}, true, []string{"key-order", "encryption-key"}},
	{"keys of nobody", func(s string) string {
		return keyText.ReplaceAllStringFunc(s, func(key string) string { return "0x" + strings.Repeat("9d", len(key)/2-1) })
	}, false, []string{"nothing-found"}},
	{"ICV", func(s string) string {
		return regexp.MustCompile(`(rfc4106\S+ 0x[0-9a-f]+) 128`).ReplaceAllString(s, "$1 96")
	}, true, []string{"icv-length"}},
	{"address", func(s string) string { return strings.ReplaceAll(s, "src 192.0.2.1 ", "src 192.0.2.77 ") }, true, []string{"addresses"}},
}

// What a kernel sealed, and the text of its SAs spoiled in one way: each SA of which
// frames fail has a finding, of the right kind, and of the others nothing is said.
func TestDiagnosis(t *testing.T) {
	for _, name := range []string{"esp-aead", "ah", "tunnel", "ah-esp", "encap", "esn"} {
		text, err := os.ReadFile(path(name, ".xfrm"))
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range spoiled {
			t.Run(name+"/"+c.name, func(t *testing.T) {
				keys := filepath.Join(t.TempDir(), "keys")
				if err := os.WriteFile(keys, []byte(c.spoil(string(text))), 0o600); err != nil {
					t.Fatal(err)
				}
				for _, row := range rows(t, keys, path(name, ".pcap")) {
					if ill := len(row.Failed) > 0 || row.SA == ""; ill != (len(row.Diagnosis) > 0) {
						t.Errorf("%s %s: %v failed, and found %+v", row.SA, row.SPI, row.Failed, row.Diagnosis)
					}
					for _, f := range row.Diagnosis {
						if f.Certain != c.certain || !slices.Contains(c.causes, f.Cause) {
							t.Errorf("%s %s: %+v", row.SA, row.SPI, f)
						}
					}
				}
			})
		}
	}
}

// rows are the SAs of a capture as `replay` sums them up.
func rows(t *testing.T, keys, capture string) []account.Row {
	t.Helper()
	out, err := program.Command("replay", "-k", keys, "--summary-only", "--json", capture).Output()
	if err != nil {
		t.Fatal(err)
	}
	var sum struct{ SAs []account.Row }
	if err := json.Unmarshal(out, &sum); err != nil {
		t.Fatal(err)
	}
	return sum.SAs
}
