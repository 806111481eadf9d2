package keys

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"tapsec/internal/lab/rig"
	"tapsec/sa"
)

func read(t *testing.T, file string) ([]*sa.SA, []string) {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", file))
	if err != nil {
		t.Fatal(err)
	}
	sas, notes, err := split(Read(file, data))
	if err != nil {
		t.Fatal(err)
	}
	return sas, notes
}

// describe is one line with everything that a reader took over.
func describe(s *sa.SA) string {
	line := fmt.Sprintf("%s %s %s %s %s>%s window %d", s.Name, s.Protocol, s.Mode, s.Suite.Name, s.Src, s.Dst, s.Window)
	if s.ESN {
		line += " esn"
	}
	if s.Direction != sa.AnyDirection {
		line += " " + s.Direction.String()
	}
	if s.SeqHigh != 0 {
		line += fmt.Sprintf(" seq_high %#x", s.SeqHigh)
	}
	if s.Seq != 0 {
		line += fmt.Sprintf(" seq %#x", s.Seq)
	}
	if s.Bitmap != nil {
		line += fmt.Sprintf(" bitmap %s", s.Bitmap)
	}
	if s.OSeq != 0 {
		line += fmt.Sprintf(" oseq %#x", s.OSeq)
	}
	if s.Encap {
		line += " encap"
	}
	if s.Selector != nil {
		line += fmt.Sprintf(" %v", *s.Selector)
	}
	return line
}

// TestGolden compares what is read from the recorded texts (record.sh) with
// what a human checked once. TAPSEC_UPDATE=1 writes it anew.
func TestGolden(t *testing.T) {
	files, _ := filepath.Glob("testdata/*.txt")
	tables, _ := filepath.Glob("testdata/*.esp_sa")
	logs, _ := filepath.Glob("testdata/*.log")
	field, _ := filepath.Glob("testdata/field/*")
	files = slices.Concat(files, tables, logs, field)
	if len(files) < 12 {
		t.Fatalf("found only %v", files)
	}
	var got strings.Builder
	for _, f := range files {
		name := strings.TrimPrefix(f, "testdata/")
		sas, notes := read(t, name)
		fmt.Fprintf(&got, "== %s\n", name)
		for _, s := range sas {
			fmt.Fprintln(&got, describe(s))
			if !s.PadCheck || s.Offload != sa.Preferred {
				t.Errorf("%s: %s: pad check and offload: preferred expected", f, s)
			}
		}
		for _, n := range notes {
			fmt.Fprintln(&got, n)
		}
	}
	const golden = "testdata/golden"
	if os.Getenv("TAPSEC_UPDATE") != "" {
		if err := os.WriteFile(golden, []byte(got.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if got.String() != string(want) {
		t.Errorf("read:\n%s\nexpected:\n%s", got.String(), want)
	}
}

// The keys in the recordings count upwards from 0x10 (ciphers) and, in
// composed.txt, from 0x40 (integrity).
func TestKeysArrive(t *testing.T) {
	counting := func(n, from int) []byte {
		b := make([]byte, n)
		for i := range b {
			b[i] = byte(from + i)
		}
		return b
	}
	for file, from := range map[string]int{"aead.txt": 0x10, "composed.txt": 0x40, "ah.txt": 0x10} {
		sas, _ := read(t, file)
		for _, s := range sas {
			if !s.EncryptionKey.Equal(sa.NewKey(counting(s.Suite.EncryptionKeyLen(), 0x10))) {
				t.Errorf("%s: %s has another encryption key", file, s)
			}
			if !s.IntegrityKey.Equal(sa.NewKey(counting(s.Suite.IntegrityKeyLen(), from))) {
				t.Errorf("%s: %s has another integrity key", file, s)
			}
		}
	}
}

// Every suite that Linux can have is in the recordings.
func TestRecordingsCoverLinux(t *testing.T) {
	seen := map[string]bool{}
	for _, file := range []string{"aead.txt", "composed.txt", "ah.txt"} {
		sas, _ := read(t, file)
		for _, s := range sas {
			for _, a := range s.Suite.Algorithms() {
				seen[a] = true
			}
		}
	}
	for _, s := range append(sa.Suites(sa.ESP), sa.Suites(sa.AH)...) {
		for _, a := range s.Algorithms() {
			if !seen[a] && s.Integrity != sa.GMAC {
				t.Errorf("no recording has %s", a)
			}
		}
	}
}

func TestXFRMForms(t *testing.T) {
	const sa1 = "src 192.0.2.1 dst 192.0.2.2\n\tproto esp spi 0xc0010001 reqid 1 mode tunnel\n\treplay-window 32 \n" +
		"\taead rfc4106(gcm(aes)) 0x000102030405060708090a0b0c0d0e0f10111213 128\n"
	for name, extra := range map[string]string{
		"lastused":  "\tlastused 2026-01-02 03:04:05\n",
		"direction": "\tdir in\n",
		"offload":   "\tcrypto offload parameters: dev eth0 dir in mode packet\n",
		"nothing":   "",
	} {
		sas, notes, err := split(Read(name, []byte(sa1+extra)))
		if err != nil || len(sas) != 1 || len(notes) != 0 {
			t.Errorf("%s: %v %v %v", name, sas, notes, err)
		}
	}
	oneLine := strings.ReplaceAll(strings.TrimSpace(sa1), "\n", `\`)
	if sas, _, err := split(Read("ip -o", []byte(oneLine))); err != nil || len(sas) != 1 {
		t.Errorf("ip -o: %v, %v", sas, err)
	}
	sas, notes, _ := split(Read("twice", []byte(sa1+sa1)))
	if len(sas) != 1 || len(notes) != 1 {
		t.Errorf("the same SA twice gives %v, %v", sas, notes)
	}
	other := strings.Replace(sa1, "192.0.2.2", "192.0.2.3", 1)
	if sas, _, _ = split(Read("two", []byte(sa1+other))); len(sas) != 2 || sas[1].Name != "esp-c0010001-192.0.2.2" {
		t.Errorf("an SPI at two destinations gives %v", sas)
	}
	for from, to := range map[string]string{"src 192.0.2.1 dst 192.0.2.2": "src ::ffff:192.0.2.1 dst ::ffff:192.0.2.2",
		"src fe80::1 dst fe80::2": "src fe80::1%eth0 dst fe80::2%eth0"} {
		plain := strings.Replace(sa1, "src 192.0.2.1 dst 192.0.2.2", from, 1) + "\tsel src 192.0.2.0/24 dst 192.0.2.0/24\n"
		want, _, _ := split(Read("plain", []byte(plain)))
		got, _, err := split(Read(to, []byte(strings.NewReplacer(from, to, "192.0.2.0/24", "::ffff:192.0.2.0/120").Replace(plain))))
		if len(want) != 1 || len(got) != 1 || describe(got[0]) != describe(want[0]) {
			t.Errorf("%s gives %v, %v, expected %v", to, got, err, want)
		}
	}
	old := "src 192.0.2.1 dst 192.0.2.2\n\tproto esp spi 0x1000 mode tunnel\n\tauth sha256 0x" + strings.Repeat("11", 32) +
		"\n\tenc aes 0x" + strings.Repeat("22", 16) + "\n"
	if sas, _, _ = split(Read("old names", []byte(old))); len(sas) != 1 || sas[0].Suite.Name != "aes128-sha256_96" {
		t.Errorf("old names give %v", sas)
	}
}

func TestESPSAForms(t *testing.T) {
	const key, auth = `"0x000102030405060708090a0b0c0d0e0f"`, `"0x000102030405060708090a0b0c0d0e0f10111213"`
	for row, want := range map[string]string{
		`"IPv4","*","192.0.2.2","0xc001","AES-CBC [RFC3602]",` + key + `,"HMAC-SHA-1-96 [RFC2404]",` + auth:                                "aes128-sha1",
		`"IPv4","1.2.3.*","192.0.2.2","49153","AES-GCM [RFC4106]",` + auth + `,"ANY 96 bit authentication [no checking]",""`:               "aes128gcm12",
		`"IPv4","*","192.0.2.2","0xc001","AES-GCM [RFC4106]",` + auth + `,"NULL",""`:                                                       "aes128gcm16",
		`"IPv4","*","192.0.2.2","0xc001","AES-CBC [RFC3602]","sixteen letters!","HMAC-MD5-96 [RFC2403]","\x73ixteen, letters"`:             "aes128-md5",
		`"IPv4","*","192.0.2.2","0xc001","AES-GCM with 16 octet ICV [RFC4106]",` + auth + `,"NULL","","64-bit","0x2"`:                      "aes128gcm16",
		`"IPv4","*","192.0.2.2","0xc001","TripleDes-CBC [RFC2451]","0x` + strings.Repeat("ab", 24) + `","HMAC-SHA-1-96 [RFC2404]",` + auth: "3des-sha1",
		`"IPv4","192.0.2.0/24","192.0.2.2","0xc001","AES-GCM [RFC4106]",` + auth + `,"NULL","0x"`:                                          "aes128gcm16",
		`"IPv4","*","192.0.2.2","*","AES-GCM with 16 octet ICV [RFC4106]",` + auth + `,"NULL",""`:                                          "",
		`"IPv4","*","192.0.2.2","0xc001","BLOWFISH-CBC [RFC2451]",` + key + `,"NULL",""`:                                                   "",
		`"IPv4","*","192.0.2.2","0xc001","AES-CBC [RFC3602]",` + key + `,"ANY 96 bit authentication [no checking]",""`:                     "",
		`"IPv4","*","192.0.2.2","0xc001","AES-CBC [RFC3602]",` + key + `,"MAC-RIPEMD-160-96 [RFC2857]",""`:                                 "",
		`"IPv4","*"`: "",
	} {
		sas, notes, err := split(Read("row", []byte("# comment\n"+row+"\n")))
		switch {
		case err != nil:
			t.Errorf("%s: %v", row, err)
		case want == "" && (len(sas) != 0 || len(notes) != 1):
			t.Errorf("%s: expected to be skipped, found %v, %v", row, sas, notes)
		case want != "" && (len(sas) != 1 || sas[0].Suite.Name != want || sas[0].SPI != 0xc001 || sas[0].Dst.String() != "192.0.2.2"):
			t.Errorf("%s: expected %s, found %v, %v", row, want, sas, notes)
		case want != "" && strings.Contains(row, "64-bit") != (sas[0].ESN && sas[0].SeqHigh == 2):
			t.Errorf("%s: ESN is %v, high half %d", row, sas[0].ESN, sas[0].SeqHigh)
		}
	}
}

func TestDetect(t *testing.T) {
	for text, want := range map[string]Format{
		"src 192.0.2.1 dst 192.0.2.2\n\tproto esp":   XFRM,
		"# generated\n\"IPv6\",\"*\",\"::1\"":        ESPSA,
		"# ours\nsas:\n  - name: x":                  YAML,
		`{"sas": []}`:                                YAML,
		"":                                           Unknown,
		"12[CHD]   SPI 0x1, src ::1 dst ::2":         Charon,
		"Nov 25 20:36:13 a charon: 09[IKE0] <4|1> x": Charon,
		"Nov 25 20:36:13 a charon: 09[CHD] updown: ip xfrm state add src ::1": Charon,
		"hello": Unknown,
	} {
		if got := Detect([]byte(text)); got != want {
			t.Errorf("Detect(%q) is %d, expected %d", text, got, want)
		}
		if want == YAML || want == Unknown {
			if _, _, err := split(Read("x", []byte(text))); !errors.Is(err, ErrFormat) {
				t.Errorf("Read(%q): %v", text, err)
			}
		}
	}
}

// everySuite makes one SA of every suite, in turns of tunnel and transport.
func everySuite() []*sa.SA {
	var sas []*sa.SA
	for i, suite := range append(sa.Suites(sa.ESP), sa.Suites(sa.AH)...) {
		s := newSA()
		s.Name, s.SPI, s.Suite, s.Protocol = fmt.Sprintf("%s-%08x", suite.Protocol, 0xc000+i), uint32(0xc000+i), suite, suite.Protocol
		s.Src, s.Dst, s.Mode = netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2"), sa.Mode(i%2+1)
		s.EncryptionKey = sa.NewKey(bytes.Repeat([]byte{0xe1, byte(i)}, 64)[:suite.EncryptionKeyLen()])
		s.IntegrityKey = sa.NewKey(bytes.Repeat([]byte{0xa1, byte(i)}, 64)[:suite.IntegrityKeyLen()])
		sas = append(sas, s)
	}
	return sas
}

// What is written for Wireshark is read back with the same suites and keys.
func TestESPSARoundTrip(t *testing.T) {
	var b bytes.Buffer
	if err := WriteESPSA(&b, everySuite()); err != nil {
		t.Fatal(err)
	}
	back, _, err := split(Read("table", b.Bytes()))
	if err != nil {
		t.Fatal(err)
	}
	byName := map[string]*sa.SA{}
	for _, s := range back {
		byName[s.Name] = s
	}
	for _, s := range everySuite() {
		unknown := regexp.MustCompile(`ccm|gmac|xcbc|cmac`).MatchString(s.Suite.Name) || s.Protocol == sa.AH
		got := byName[s.Name]
		if got == nil {
			if !unknown {
				t.Errorf("%s is lost", s)
			}
			continue
		}
		got.Mode = s.Mode
		if unknown || !got.Same(s) {
			t.Errorf("%s became %s", describe(s), describe(got))
		}
	}
}

// Real tshark takes the table, every row of it.
func TestTsharkTakesTable(t *testing.T) {
	if _, err := exec.LookPath("tshark"); err != nil {
		rig.Missing(t, "tshark is missing: apt-get install tshark")
	}
	empty := filepath.Join(t.TempDir(), "empty.pcap")
	header := "\xd4\xc3\xb2\xa1\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\xff\xff\x00\x00\x01\x00\x00\x00"
	if err := os.WriteFile(empty, []byte(header), 0o600); err != nil {
		t.Fatal(err)
	}
	var table bytes.Buffer
	sas := slices.DeleteFunc(everySuite(), needsWireshark42) // Debian's is older
	if err := WriteESPSA(&table, sas); err != nil {
		t.Fatal(err)
	}
	config := t.TempDir()
	tshark := func(content []byte) string {
		if err := os.WriteFile(filepath.Join(config, "esp_sa"), content, 0o600); err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command("tshark", "-n", "-r", empty)
		cmd.Env = append(os.Environ(), "WIRESHARK_CONFIG_DIR="+config)
		out, _ := cmd.CombinedOutput()
		return string(out)
	}
	if out := tshark(table.Bytes()); strings.Contains(out, "esp_sa") {
		t.Errorf("tshark says %s", out)
	}
	ours, err := os.ReadFile("testdata/wireshark.esp_sa")
	if err != nil {
		t.Fatal(err)
	}
	if out := tshark(ours); strings.Contains(out, "esp_sa") {
		t.Errorf("tshark says of testdata/wireshark.esp_sa: %s", out)
	}
	wrong := bytes.Replace(table.Bytes(), []byte("[RFC3602]"), []byte("[RFC0000]"), 1)
	if out := tshark(wrong); !strings.Contains(out, "esp_sa") {
		t.Errorf("tshark did not read the table: it took a wrong one, saying %q", out)
	}
}

func TestWriteXFRM(t *testing.T) {
	var b bytes.Buffer
	sas := append(everySuite(), &sa.SA{Name: "no\ndst", Protocol: sa.ESP})
	if err := WriteXFRM(&b, sas); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(b.String()), "\n")
	if len(lines) != len(sas) {
		t.Fatalf("%d SAs gave %d lines", len(sas), len(lines))
	}
	for i, s := range sas {
		noLinux := s.Suite.Integrity == sa.GMAC || !s.Dst.IsValid()
		key := hex.EncodeToString(s.EncryptionKey.Bytes())
		switch {
		case noLinux != strings.HasPrefix(lines[i], "# "):
			t.Errorf("%s: %s", s, lines[i])
		case !noLinux && !strings.Contains(lines[i], key):
			t.Errorf("%s: the key is missing in %s", s, lines[i])
		}
	}
}

// A key that a broken text holds in any place stays out of notes and errors.
func FuzzRead(f *testing.F) {
	const secret = "5ec2e7c0ffee5ec2e7c0ffee5ec2e7c0ffee5ec2"
	files, _ := filepath.Glob("testdata/*.txt")
	tables, _ := filepath.Glob("testdata/*.esp_sa")
	key := regexp.MustCompile(`0x(?:1011121314|00010203)[0-9a-f]*`)
	field, _ := filepath.Glob("testdata/field/*")
	for _, name := range slices.Concat(files, tables, field) {
		data, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(key.ReplaceAll(data, []byte("0x"+secret)))
	}
	f.Add([]byte("src 1.2.3.4 dst 1.2.3.4\n\tproto " + secret + " spi " + secret + " mode " + secret + "\n\taead " + secret + " " + secret + " " + secret))
	f.Add([]byte("src 1.2.3.4 dst 1.2.3.4\n\tproto esp spi 1 mode tunnel\n\tenc 0x" + secret + "\n\tencap type " + secret))
	f.Add([]byte(`"IPv4","` + secret + `","` + secret + `","0x` + secret + `","` + secret + `","` + secret + `","` + secret + `","0x"`))
	f.Add(append([]byte(charonExchange), "1[CHD] adding inbound "+secret+" SA\n1[CHD]   SPI 0x1, src "+secret+" dst "+secret...))
	f.Fuzz(func(t *testing.T, data []byte) {
		sas, notes, err := split(Read("fuzz", data))
		if text := fmt.Sprint(notes, err); strings.Contains(text, secret) {
			t.Errorf("a key is shown: %s", text)
		}
		for _, s := range sas {
			if bad := s.Check(false, true); bad != nil {
				t.Errorf("%s: %v", s, bad)
			}
		}
		if text := fmt.Sprintf("%v %+v", sas, sas); strings.Contains(text, secret) {
			t.Errorf("a key is shown: %s", text)
		}
	})
}

// split is what most tests ask for.
func split(read *SAs, err error) ([]*sa.SA, []string, error) {
	if err != nil {
		return nil, nil, err
	}
	return read.All, read.Notes, nil
}
