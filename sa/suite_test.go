package sa

import (
	"slices"
	"testing"
)

// Lengths as the RFCs give them, by keyword: key, salt, IV, block, integrity
// key, ICV.
var espSuites = map[string][6]int{
	"null-sha256":      {0, 0, 0, 4, 32, 16},    // RFC 2410, RFC 4868
	"des-md5":          {8, 0, 8, 8, 16, 12},    // RFC 2405, RFC 2403
	"3des-sha1":        {24, 0, 8, 8, 20, 12},   // RFC 2451, RFC 2404
	"aes128-sha256_96": {16, 0, 16, 16, 32, 12}, // RFC 3602
	"aes192-sha384":    {24, 0, 16, 16, 48, 24}, // RFC 4868
	"aes256-sha512":    {32, 0, 16, 16, 64, 32}, // RFC 4868
	"aes128-aesxcbc":   {16, 0, 16, 16, 16, 12}, // RFC 3566
	"aes128-aescmac":   {16, 0, 16, 16, 16, 12}, // RFC 4494
	"aes128ctr-sha256": {16, 4, 8, 4, 32, 16},   // RFC 3686
	"aes192ctr-sha256": {24, 4, 8, 4, 32, 16},   //
	"aes256ctr-sha384": {32, 4, 8, 4, 48, 24},   //
	"chacha20poly1305": {32, 4, 8, 4, 0, 16},    // RFC 7634
	"aes128gmac":       {16, 4, 8, 4, 0, 16},    // RFC 4543
	"aes192gmac":       {24, 4, 8, 4, 0, 16},    //
	"aes256gmac":       {32, 4, 8, 4, 0, 16},    //
	"aes128gcm8":       {16, 4, 8, 4, 0, 8},     // RFC 4106
	"aes128gcm12":      {16, 4, 8, 4, 0, 12},    //
	"aes128gcm16":      {16, 4, 8, 4, 0, 16},    //
	"aes192gcm8":       {24, 4, 8, 4, 0, 8},     //
	"aes192gcm12":      {24, 4, 8, 4, 0, 12},    //
	"aes192gcm16":      {24, 4, 8, 4, 0, 16},    //
	"aes256gcm8":       {32, 4, 8, 4, 0, 8},     //
	"aes256gcm12":      {32, 4, 8, 4, 0, 12},    //
	"aes256gcm16":      {32, 4, 8, 4, 0, 16},    //
	"aes128ccm8":       {16, 3, 8, 4, 0, 8},     // RFC 4309
	"aes128ccm12":      {16, 3, 8, 4, 0, 12},    //
	"aes128ccm16":      {16, 3, 8, 4, 0, 16},    //
	"aes192ccm8":       {24, 3, 8, 4, 0, 8},     //
	"aes192ccm12":      {24, 3, 8, 4, 0, 12},    //
	"aes192ccm16":      {24, 3, 8, 4, 0, 16},    //
	"aes256ccm8":       {32, 3, 8, 4, 0, 8},     //
	"aes256ccm12":      {32, 3, 8, 4, 0, 12},    //
	"aes256ccm16":      {32, 3, 8, 4, 0, 16},    //
	"null":             {0, 0, 0, 4, 0, 0},      // no integrity: for bundles
	"aes256":           {32, 0, 16, 16, 0, 0},   //
}

var ahSuites = map[string][6]int{
	"md5":        {0, 0, 0, 0, 16, 12}, // RFC 2403
	"sha1":       {0, 0, 0, 0, 20, 12}, // RFC 2404
	"sha256":     {0, 0, 0, 0, 32, 16}, // RFC 4868
	"sha256_96":  {0, 0, 0, 0, 32, 12},
	"sha384":     {0, 0, 0, 0, 48, 24},
	"sha512":     {0, 0, 0, 0, 64, 32},
	"aesxcbc":    {0, 0, 0, 0, 16, 12}, // RFC 3566
	"aescmac":    {0, 0, 0, 0, 16, 12}, // RFC 4494
	"aes128gmac": {0, 4, 8, 0, 16, 16}, // RFC 4543
	"aes192gmac": {0, 4, 8, 0, 24, 16},
	"aes256gmac": {0, 4, 8, 0, 32, 16},
}

func lengths(s Suite) [6]int {
	return [6]int{s.KeyLen, s.SaltLen, s.IVLen, s.Block, s.AuthLen, s.ICVLen}
}

// Contract, Algorithms.
func TestParseSuite(t *testing.T) {
	for p, suites := range map[Protocol]map[string][6]int{ESP: espSuites, AH: ahSuites} {
		for name, want := range suites {
			s, err := ParseSuite(p, name)
			if err != nil || s.Name != name || s.Protocol != p || lengths(s) != want {
				t.Errorf("%s %s: %+v, %v", p, name, s, err)
			}
		}
	}
	for p, other := range map[Protocol]map[string]string{
		ESP: {"AES128-SHA2_256": "aes128-sha256", "aes-sha": "aes128-sha1", "aes128gcm": "aes128gcm16",
			"aes128gcm128": "aes128gcm16", "aes256gcm96": "aes256gcm12", "aes192ccm64": "aes192ccm8", "aes128ccm": "aes128ccm16"},
		AH: {"sha": "sha1", "sha2_384": "sha384", "SHA2_512": "sha512"},
	} {
		for text, want := range other {
			if s, err := ParseSuite(p, text); err != nil || s.Name != want {
				t.Errorf("%s %s: %q, %v", p, text, s.Name, err)
			}
		}
	}
}

func TestParseSuiteRefuses(t *testing.T) {
	for p, bad := range map[Protocol][]string{
		ESP: {"", "-", "sha256", "aes512", "aes128-", "-sha256", "aes128-aes256", "aes128-sha256-sha256", "aes128gcm16-sha256",
			"aes128gcm4", "aes128ctr-aes128gmac", "chacha20poly1305-sha256", "aes128 sha256", "gcm", "aes128gcm016"},
		AH: {"", "null", "aes128", "aes128gcm16", "sha256-sha256", "aes128-sha256", "sha256-", "gmac"},
	} {
		for _, text := range bad {
			if s, err := ParseSuite(p, text); err == nil || s != (Suite{}) {
				t.Errorf("%s %q was read as %q", p, text, s.Name)
			}
		}
	}
}

// Suites is complete: every combined cipher, and every other one with every
// integrity; the table above has each cipher and each integrity once.
func TestSuites(t *testing.T) {
	var seen []string
	for p, count := range map[Protocol]int{ESP: (3+1+1+1+3)*8 + 3*3*2 + 3 + 1, AH: len(ahSuites)} {
		all := Suites(p)
		if len(all) != count {
			t.Errorf("%s: %d suites, expected %d", p, len(all), count)
		}
		for i, s := range all {
			if again, err := ParseSuite(p, s.Name); err != nil || again != s || s.ICVLen == 0 {
				t.Errorf("%s %s does not read back: %v", p, s.Name, err)
			}
			if slices.Contains(all[:i], s) {
				t.Errorf("%s %s is listed twice", p, s.Name)
			}
			seen = append(seen, s.Algorithms()...)
		}
	}
	for name := range espSuites {
		s, _ := ParseSuite(ESP, name)
		for _, algorithm := range s.Algorithms() {
			if !slices.Contains(seen, algorithm) {
				t.Errorf("Suites lacks %s of %s", algorithm, name)
			}
		}
	}
}

// RFC 8221: these need allow_legacy, and nothing else does.
func TestLegacy(t *testing.T) {
	for name, want := range map[string]bool{
		"des-sha256": true, "3des-sha256": true, "aes128-md5": true, "null-sha1": true, "des": true,
		"aes128-sha256": false, "null-sha256": false, "aes128-aesxcbc": false, "aes128gcm16": false,
	} {
		if s, err := ParseSuite(ESP, name); err != nil || s.Legacy() != want {
			t.Errorf("%s: legacy %v, %v", name, s.Legacy(), err)
		}
	}
	for _, s := range Suites(AH) {
		if want := s.Name == "md5" || s.Name == "sha1"; s.Legacy() != want {
			t.Errorf("ah %s: legacy %v", s.Name, s.Legacy())
		}
	}
}
