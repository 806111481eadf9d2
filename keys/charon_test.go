package keys

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"tapsec/sa"
)

// charonExchange is what two workers say between each other's lines; the first
// one parsed a request.
const charonExchange = `01[ENC] parsed CREATE_CHILD_SA request 2 [ N(USE_TRANSP) SA No TSi TSr ]
02[ENC] parsed CREATE_CHILD_SA response 7 [ SA No TSi TSr ]
01[CFG] selected proposal: ESP:AES_CBC_128/HMAC_MD5_96/EXT_SEQ
01[CHD]   using AES_CBC for encryption
02[CHD]   using AES_GCM_16 for encryption
01[CHD]   using HMAC_MD5_96 for integrity
01[CHD] encryption initiator key => 16 bytes @ 0x7fa6399f9940
02[CHD] encryption initiator key => 20 bytes @ 0x7fa6399f9940
01[CHD]    0: A0 A1 A2 A3 A4 A5 A6 A7 A8 A9 AA AB AC AD AE AF  ................
02[CHD]    0: D0 D1 D2 D3 D4 D5 D6 D7 D8 D9 DA DB DC DD DE DF  ................
02[CHD]   16: 41 42 43 44                                      ABCD
01[CHD] encryption responder key => 16 bytes @ 0x7fa6399f9940
01[CHD]    0: B0 B1 B2 B3 B4 B5 B6 B7 B8 B9 BA BB BC BD BE BF  ................
01[CHD] integrity initiator key => 16 bytes @ 0x7fa6399f9940
01[CHD]    0: 10 11 12 13 14 15 16 17 18 19 1A 1B 1C 1D 1E 1F  ................
01[CHD] integrity responder key => 16 bytes @ 0x7fa6399f9940
01[CHD]    0: 20 21 22 23 24 25 26 27 28 29 2A 2B 2C 2D 2E 2F   !"#$%&'()*+,-./
02[CHD] encryption responder key => 20 bytes @ 0x7fa6399f9940
02[CHD]    0: E0 E1 E2 E3 E4 E5 E6 E7 E8 E9 EA EB EC ED EE EF  ................
02[CHD]   16: 61 62 63 64                                      abcd
01[CHD] adding inbound ESP SA
02[CHD] adding inbound ESP SA
02[CHD]   SPI 0xc0000002, src 192.0.2.3 dst 192.0.2.1
01[CHD]   SPI 0xc0000001, src 192.0.2.2 dst 192.0.2.1
01[CHD] registering outbound ESP SA
01[CHD]   SPI 0xc0000003, src 192.0.2.1 dst 192.0.2.2
01[ENC] generating CREATE_CHILD_SA response 2 [ N(USE_TRANSP) SA No TSi TSr ]
01[ENC] parsed INFORMATIONAL request 3 [ D ]
01[CHD] adding outbound ESP SA
01[CHD]   SPI 0xc0000003, src 192.0.2.1 dst 192.0.2.2
`

// Workers are kept apart; whose key an SA has follows from who asked; the mode
// is the one that was answered; a registered SA comes once.
func TestCharonWorkers(t *testing.T) {
	sas, notes, err := split(Read("log", []byte(charonExchange)))
	if err != nil || len(notes) != 0 {
		t.Fatal(notes, err)
	}
	for i, want := range []struct {
		sa, encryption, integrity string
	}{
		{"esp-c0000002 esp tunnel aes128gcm16 192.0.2.3>192.0.2.1 window 64", "e0e1e2e3e4e5e6e7e8e9eaebecedeeef61626364", ""},
		{"esp-c0000001 esp transport aes128-md5 192.0.2.2>192.0.2.1 window 64 esn", "a0a1a2a3a4a5a6a7a8a9aaabacadaeaf", "101112131415161718191a1b1c1d1e1f"},
		{"esp-c0000003 esp transport aes128-md5 192.0.2.1>192.0.2.2 window 64 esn", "b0b1b2b3b4b5b6b7b8b9babbbcbdbebf", "202122232425262728292a2b2c2d2e2f"},
	} {
		if i >= len(sas) {
			t.Fatalf("%d SAs", len(sas))
		}
		if got := describe(sas[i]); got != want.sa {
			t.Errorf("got %s, want %s", got, want.sa)
		}
		for _, k := range []struct {
			key  sa.Key
			want string
		}{{sas[i].EncryptionKey, want.encryption}, {sas[i].IntegrityKey, want.integrity}} {
			if got := strings.TrimPrefix(hexKey(k.key), "0x"); got != k.want {
				t.Errorf("%s has the key %s, want %s", sas[i], got, k.want)
			}
		}
	}
}

// Both ends of a connection log the same SAs with the same keys, whoever began,
// under whatever prefix.
func TestCharonBothEnds(t *testing.T) {
	for _, kind := range []string{"libipsec", "netlink"} {
		a, notesA := read(t, "charon-"+kind+"-a.log")
		b, notesB := read(t, "charon-"+kind+"-b.log")
		if len(a) != len(b) || len(a) < 10 || len(notesA)+len(notesB) > 0 {
			t.Fatalf("%s: %d and %d SAs, %v, %v", kind, len(a), len(b), notesA, notesB)
		}
		byName := map[string]*sa.SA{}
		for _, s := range a {
			byName[s.Name] = s
		}
		for _, s := range b {
			if o := byName[s.Name]; o == nil || !s.Same(o) {
				t.Errorf("%s: one end says %s, the other %v", kind, describe(s), o)
			}
		}
	}
}

// What the log keeps back is named, with the setting that shows it.
func TestCharonKeptBack(t *testing.T) {
	without := func(mark string) string {
		var kept []string
		for _, line := range strings.Split(charonExchange, "\n") {
			if !strings.Contains(line, mark) {
				kept = append(kept, line)
			}
		}
		return strings.Join(kept, "\n")
	}
	for mark, want := range map[string]string{
		" key => ":    "chd = 4",
		"[ENC]":       "enc = 1",
		"  16: ":      "to their ends",
		"using AES_C": `found "md5"`,
	} {
		_, notes, err := split(Read("log", []byte(without(mark))))
		if err != nil || !strings.Contains(strings.Join(notes, "\n"), want) {
			t.Errorf("without %q: %v %v, want %q", mark, notes, err, want)
		}
	}
}

// The logs of two daemons in one file, line by line as docker compose and journalctl --merge show
// them: workers of one number are not taken for one.
func TestCharonInterleaved(t *testing.T) {
	read := func(file string) []string {
		return strings.Split(strings.TrimSpace(string(must(os.ReadFile("testdata/"+file)))), "\n")
	}
	for _, prefixes := range [][2]string{
		{"moon-1  | ", "sun-1   | "},
		{"Nov 28 12:00:%02d moon charon: ", "Nov 28 12:00:%02d sun charon: "},
		{"2026-11-28T12:00:%02d.1+01:00 gw charon[411]: ", "2026-11-28T12:00:%02d.1+01:00 gw charon[87]: "},
	} {
		var text strings.Builder
		a, b := read("charon-netlink-a.log"), read("charon-netlink-b.log")
		for i := range max(len(a), len(b)) {
			for side, lines := range [][]string{a, b} {
				if prefix := prefixes[side]; i < len(lines) && strings.Contains(prefix, "%") {
					fmt.Fprintf(&text, prefix, i%60)
					fmt.Fprintln(&text, lines[i])
				} else if i < len(lines) {
					fmt.Fprintln(&text, prefix+lines[i])
				}
			}
		}
		keys := func(log string) string {
			var all []string
			for _, s := range must(Read("log", []byte(log))).All {
				all = append(all, fmt.Sprintf("%s %x %x", describe(s), s.EncryptionKey.Bytes(), s.IntegrityKey.Bytes()))
			}
			slices.Sort(all)
			return strings.Join(all, "\n")
		}
		if got, want := keys(text.String()), keys(strings.Join(a, "\n")); got != want || want == "" {
			t.Errorf("%q:\n%s\nwant\n%s", prefixes, got, want)
		}
	}
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}
