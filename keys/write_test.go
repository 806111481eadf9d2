package keys

import (
	"bytes"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"tapsec/internal/lab/rig"
	"tapsec/sa"
)

// The commands that are written for Linux are read back as the states were.
func TestXFRMRoundTrip(t *testing.T) {
	files, _ := filepath.Glob("testdata/*.txt")
	sas := everySuite()
	for _, f := range files {
		recorded, _ := read(t, filepath.Base(f))
		sas = append(sas, recorded...)
	}
	for _, name := range []string{"seq: 0x1", "oseq: 0x1", "protocol: 1"} {
		s := aeadSA()
		s.Mode = sa.Tunnel
		smallest[name](s)
		sas = append(sas, s)
	}
	for _, s := range sas {
		fields, err := Lost(XFRM, s)
		if err != nil {
			if s.Protocol != sa.AH || s.Suite.Integrity != sa.GMAC {
				t.Errorf("%s: %v", s, err)
			}
			continue
		}
		var b bytes.Buffer
		if err := WriteXFRM(&b, []*sa.SA{s}); err != nil {
			t.Fatal(err)
		}
		back, notes, err := split(Read("commands", b.Bytes()))
		if err != nil || len(back) != 1 || len(notes) != 0 {
			t.Fatalf("%s: %v, %v, %v", s, back, notes, err)
		}
		back[0].Name = s.Name // which may tell SAs apart that stand together
		if want := lostBitmap(s); !slices.Equal(fields, want) {
			t.Errorf("%s: said to lose %v, expected %v", describe(s), fields, want)
		}
		back[0].Bitmap = s.Bitmap
		if describe(back[0]) != describe(s) || !back[0].Same(s) {
			t.Errorf("%s became %s, said to lose %v", describe(s), describe(back[0]), fields)
		}
	}
}

// smallest are values next to none.
var smallest = map[string]func(*sa.SA){
	"seq: 0x1":     func(s *sa.SA) { s.Seq = 1 },
	"oseq: 0x1":    func(s *sa.SA) { s.OSeq = 1 },
	"seq_high: 1":  func(s *sa.SA) { s.ESN, s.SeqHigh = true, 1 },
	"protocol: 1":  func(s *sa.SA) { s.Selector = &sa.Selector{Protocol: 1} },
	"encap_src: 1": func(s *sa.SA) { s.Encap, s.EncapSrc = true, 1 },
	"encap_dst: 1": func(s *sa.SA) { s.Encap, s.EncapDst = true, 1 },
}

// A value next to none is written, too.
func TestYAMLSmallest(t *testing.T) {
	for want, change := range smallest {
		s := aeadSA()
		change(s)
		var b bytes.Buffer
		if err := Write(&b, YAML, []*sa.SA{s}); err != nil || !strings.Contains(b.String(), want) {
			t.Errorf("no %s in %s, %v", want, b.String(), err)
		}
	}
}

// aeadSA is one that every format can hold.
func aeadSA() *sa.SA {
	all := everySuite()
	return all[slices.IndexFunc(all, func(s *sa.SA) bool { return s.Suite.Name == "aes128gcm16" })]
}

// lostBitmap is all that a command loses: it has no word for a bitmap.
func lostBitmap(s *sa.SA) []string {
	if s.Bitmap == nil {
		return nil
	}
	return []string{"bitmap"}
}

// TestWritten compares what the recorded texts become in each form, and what is
// said of it, with what a human checked once. TAPSEC_UPDATE=1 writes it anew.
func TestWritten(t *testing.T) {
	var got bytes.Buffer
	for _, file := range []string{"aead.txt", "composed.txt", "ah.txt", "modes.txt", "used-receiver.txt", "wireshark.esp_sa"} {
		sas, _ := read(t, file)
		for _, format := range []Format{YAML, XFRM, ESPSA} {
			fmt.Fprintf(&got, "== %s as %s\n", file, format)
			for _, s := range sas {
				if fields, err := Lost(format, s); fields != nil || err != nil {
					fmt.Fprintf(&got, "%s loses %s %v\n", s.Name, strings.Join(fields, ", "), err)
				}
			}
			if err := Write(&got, format, sas); err != nil {
				t.Fatal(err)
			}
		}
	}
	const golden = "testdata/written"
	if os.Getenv("TAPSEC_UPDATE") != "" {
		if err := os.WriteFile(golden, got.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got.Bytes(), want) {
		t.Errorf("%s is written otherwise; see with TAPSEC_UPDATE=1 and git diff", golden)
	}
}

// Commands as people write them, in scripts and for ip -batch.
func TestCommands(t *testing.T) {
	const key, salted = "0x000102030405060708090a0b0c0d0e0f", "0x000102030405060708090a0b0c0d0e0f10111213"
	for text, want := range map[string]string{
		"ip xfrm state add src 192.0.2.1 dst 192.0.2.2 proto esp spi 0x1001 mode tunnel aead 'rfc4106(gcm(aes))' " + salted + " 128":                                                                                                           "esp-00001001 esp tunnel aes128gcm16 192.0.2.1>192.0.2.2 window 64",
		"xfrm state add src ::1 dst ::2 proto ah spi 4097 auth-trunc hmac(sha1) " + salted + " 96":                                                                                                                                             "ah-00001001 ah transport sha1 ::1>::2 window 64",
		"sudo ip -n left xfrm state update src 192.0.2.1 dst 192.0.2.2 \\\n\tproto esp spi 0x1001 reqid 5 \\\n\tenc 'cbc(aes)' " + key + " auth 'hmac(sha1)' " + salted + " mode tunnel":                                                       "esp-00001001 esp tunnel aes128-sha1 192.0.2.1>192.0.2.2 window 64",
		`ip xfrm state add src 192.0.2.1 dst 192.0.2.2 proto esp spi 0x1001 aead "rfc4106(gcm(aes))" ` + salted + ` 128 encap espinudp 4500 4500 0.0.0.0`:                                                                                      "esp-00001001 esp transport aes128gcm16 invalid IP>192.0.2.2 window 64 encap",
		"ip xfrm state add src 192.0.2.1 dst 192.0.2.2 proto esp spi 0x1001 replay-window 128 flag esn replay-seq-hi 3 replay-seq 0xfffffff0 aead rfc4106(gcm(aes)) " + salted + " 128 sel src 10.0.0.0/8 dst 10.1.0.0/16 proto tcp dport 443": "esp-00001001 esp transport aes128gcm16 192.0.2.1>192.0.2.2 window 128 esn seq 0x3fffffff0 {10.0.0.0/8 10.1.0.0/16 6 {0 0} {443 443}}",
		"ip xfrm state add src 192.0.2.1 dst 192.0.2.2 proto esp spi 0x1001 aead rfc4106(gcm(aes)) $KEY 128":                                                                                                                                   "line 1: esp-00001001 skipped: aead: expected the key in hexadecimal behind 0x",
		"ip xfrm state add src 192.0.2.1 dst 192.0.2.2 proto comp spi 0x1001":                                                                                                                                                                  "line 1: sa-00001001 skipped: proto \"comp\" is not supported",
		"# ip xfrm state add of an example\nip xfrm state add src 192.0.2.1 dst 192.0.2.2 spi 0x1001 mode transport":                                                                                                                           "line 2: sa-00001001 skipped: proto \"\" is not supported",
	} {
		sas, notes, err := split(Read("script", []byte(text+"\nip xfrm policy add src 192.0.2.1 dst 192.0.2.2 dir out tmpl proto esp mode tunnel\n")))
		for _, s := range sas {
			notes = append(notes, describe(s))
		}
		if err != nil || len(notes) != 1 || notes[0] != want {
			t.Errorf("%s:\n%q, %v\nwant %q", text, notes, err, want)
		}
	}
}

// Each field that a format cannot hold is named, and no other.
func TestLost(t *testing.T) {
	for _, c := range []struct {
		change      func(s *sa.SA)
		xfrm, table string // fields
	}{
		{func(s *sa.SA) {}, "", ""},
		{func(s *sa.SA) { s.Mode = sa.Transport }, "", "mode"},
		{func(s *sa.SA) { s.Mode = sa.Tunnel }, "", "mode"},
		{func(s *sa.SA) { s.Src = netip.Addr{} }, "", ""},
		{func(s *sa.SA) { s.ESN = true }, "", ""},
		{func(s *sa.SA) { s.ESN, s.SeqHigh = true, 7 }, "", ""},
		{func(s *sa.SA) { s.ESN, s.Seq, s.OSeq = true, 7<<32|5, 6<<32|4 }, "", "seq oseq"},
		{func(s *sa.SA) { s.Seq, s.OSeq, s.Bitmap = 5, 9, sa.Bitmap{7} }, "bitmap", "seq bitmap oseq"},
		{func(s *sa.SA) { s.Direction, s.OSeq = sa.Outbound, 9 }, "", "direction oseq"},
		{func(s *sa.SA) { s.Direction, s.Seq = sa.Inbound, 9 }, "", "direction seq"},
		{func(s *sa.SA) { s.Encap, s.Src = true, netip.Addr{} }, "", "encap"},
		{func(s *sa.SA) { s.Bundle = "x" }, "bundle", "bundle"},
		{func(s *sa.SA) { s.Window = 32 }, "", "window"},
		{func(s *sa.SA) { s.Window = 1024 }, "", "window"},
		{func(s *sa.SA) { s.ReplayOff = true }, "", "replay_off"},
		{func(s *sa.SA) { s.ReplayOff, s.ESN = true, true }, "replay_off", "replay_off"},
		{func(s *sa.SA) { s.PadCheck = false }, "pad_check", "pad_check"},
		{func(s *sa.SA) { s.Selector = &sa.Selector{Protocol: 17, DstPorts: sa.Ports{First: 53, Last: 53}} }, "", "selector"},
		{func(s *sa.SA) { s.Selector = &sa.Selector{DstPorts: sa.Ports{First: 53, Last: 99}} }, "selector", "selector"},
		{func(s *sa.SA) { s.Lifetimes.Hard.Time = time.Hour }, "lifetimes", "lifetimes"},
		{func(s *sa.SA) { s.Offload = sa.Never }, "offload", "offload"},
		{func(s *sa.SA) {
			s.Suite, _ = sa.ParseSuite(sa.ESP, "aes128-aescmac")
			s.EncryptionKey, s.IntegrityKey = sa.NewKey(make([]byte, 16)), sa.NewKey(make([]byte, 16))
		}, "", "integrity"},
	} {
		for format, want := range map[Format]string{XFRM: c.xfrm, ESPSA: c.table, YAML: ""} {
			s := aeadSA()
			if s.Mode = sa.Auto; format == XFRM {
				s.Mode = sa.Tunnel
			}
			c.change(s)
			if got, err := Lost(format, s); err != nil || strings.Join(got, " ") != want {
				t.Errorf("%s of %s loses %q, %v; want %q", format, describe(s), got, err, want)
			}
		}
	}
	auto := everySuite()[0]
	auto.Mode = sa.Auto
	if _, err := Lost(XFRM, auto); err == nil || !strings.Contains(err.Error(), "(auto)") {
		t.Errorf("xfrm can hold mode auto: %v", err)
	}
	for _, s := range []*sa.SA{{Name: "ah", Protocol: sa.AH}, {Name: "none", Protocol: sa.ESP}} {
		for _, format := range []Format{XFRM, ESPSA} {
			if _, err := Lost(format, s); err == nil {
				t.Errorf("%s can hold %v", format, s)
			}
		}
	}
}

// kernel are lines about what the kernel said of a command that ip understood.
var kernel = regexp.MustCompile(`^(RTNETLINK answers: |Error: Requested .* not found|Command failed )`)

// The real ip parses each command; whether the kernel has the algorithm is
// another matter.
func TestIPTakesCommands(t *testing.T) {
	if _, err := exec.LookPath("ip"); err != nil {
		rig.Missing(t, "ip is missing: apt-get install iproute2")
	}
	batch := func(sas []*sa.SA, spoil string) (said string, refused int) {
		var b bytes.Buffer
		if err := WriteXFRM(&b, sas); err != nil {
			t.Fatal(err)
		}
		text := strings.ReplaceAll(b.String(), "ip xfrm", "xfrm") + spoil
		file := filepath.Join(t.TempDir(), "batch")
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		out, _ := exec.Command("unshare", "-rn", "ip", "-force", "-batch", file).CombinedOutput()
		for line := range strings.Lines(string(out)) {
			if !kernel.MatchString(line) {
				refused++
			}
		}
		return string(out), refused
	}
	if said, n := batch(nil, "xfrm state add src 192.0.2.1 dst 192.0.2.2 proto esp spi 1 mod tunnel\n"); n == 0 {
		rig.Missing(t, fmt.Sprintf("ip refuses nothing in a namespace of its own: %s", said))
	}
	sas := everySuite()
	for _, f := range []string{"modes.txt", "used-receiver.txt"} {
		recorded, _ := read(t, f)
		sas = append(sas, recorded...)
	}
	if said, n := batch(sas, ""); n > 0 {
		t.Errorf("ip refuses %d lines:\n%s", n, said)
	}
}
