package keys

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode/utf16"

	"tapsec/sa"
)

// The files of testdata/field are texts as people have them; what is right stands in
// testdata/golden. They are read the same whatever editor or mail they went through.
func TestTextsTravel(t *testing.T) {
	files, _ := filepath.Glob("testdata/field/*")
	if len(files) < 15 {
		t.Fatalf("found only %v", files)
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		want := summary(t, data)
		for how, change := range map[string]func([]byte) []byte{
			"UTF-8 with a mark":       func(b []byte) []byte { return append([]byte("\xef\xbb\xbf"), b...) },
			"UTF-16 of PowerShell":    func(b []byte) []byte { return utf16Bytes(b, binary.LittleEndian, true) },
			"UTF-16, the other order": func(b []byte) []byte { return utf16Bytes(b, binary.BigEndian, true) },
			"UTF-16 without a mark":   func(b []byte) []byte { return utf16Bytes(b, binary.LittleEndian, false) },
			"lines of Windows":        func(b []byte) []byte { return bytes.ReplaceAll(b, []byte("\n"), []byte("\r\n")) },
			"lines of old Macs":       func(b []byte) []byte { return bytes.ReplaceAll(b, []byte("\n"), []byte("\r")) },
			"quoted in a mail":        func(b []byte) []byte { return prefixed(b, "> ") },
			"quoted twice":            func(b []byte) []byte { return prefixed(b, "> >> ") },
			"indented":                func(b []byte) []byte { return prefixed(b, "    ") },
			"with blanks at the ends": func(b []byte) []byte { return bytes.ReplaceAll(b, []byte("\n"), []byte(" \t\n")) },
			"without":                 func(b []byte) []byte { return regexp.MustCompile(`(?m)[ \t]+$`).ReplaceAll(b, nil) },
			"from a web page":         func(b []byte) []byte { return bytes.ReplaceAll(b, []byte("  "), []byte("\u00a0 ")) },
			"from another page":       func(b []byte) []byte { return bytes.ReplaceAll(b, []byte("  "), []byte("\u2003\u202f")) },
			"with hidden characters":  func(b []byte) []byte { return bytes.ReplaceAll(b, []byte(" "), []byte(" \u200b")) },
			"in colours":              func(b []byte) []byte { return prefixed(b, "\x1b[01;31m\x1b[K") },
			"of a terminal":           func(b []byte) []byte { return append([]byte("\x1b]0;root@gw: ~\a\x1b[?2004l"), b...) },
		} {
			if got := summary(t, change(data)); got != want {
				t.Errorf("%s, %s:\n%s\nwant\n%s", file, how, got, want)
			}
		}
	}
}

func summary(t *testing.T, data []byte) string {
	t.Helper()
	read, err := Read("x", data)
	if err != nil {
		return err.Error()
	}
	var b strings.Builder
	for _, s := range read.All {
		fmt.Fprintf(&b, "%s %x %x\n", describe(s), s.EncryptionKey.Bytes(), s.IntegrityKey.Bytes())
	}
	return b.String() + strings.Join(read.Notes, "\n")
}

func utf16Bytes(b []byte, order binary.AppendByteOrder, mark bool) []byte {
	units := utf16.Encode([]rune(string(b)))
	if mark {
		units = slices.Insert(units, 0, 0xfeff)
	}
	var out []byte
	for _, u := range units {
		out = order.AppendUint16(out, u)
	}
	return out
}

func prefixed(b []byte, prefix string) []byte {
	return []byte(prefix + strings.ReplaceAll(strings.TrimSuffix(string(b), "\n"), "\n", "\n"+prefix) + "\n")
}

// Commands in the ways that scripts put them: each is an SA of its own, and nothing
// behind it is part of it.
func TestShell(t *testing.T) {
	const a = "ip xfrm state add src 192.0.2.1 dst 192.0.2.2 proto esp spi 0x1 mode tunnel aead 'rfc4106(gcm(aes))' 0x000102030405060708090a0b0c0d0e0f10111213 128"
	b := strings.Replace(a, "spi 0x1", "spi 0x2", 1)
	both := "esp-00000001 esp-00000002"
	for text, want := range map[string]string{
		a + " && " + b:                      both,
		a + "; " + b:                        both,
		a + " || " + b:                      both,
		a + ";" + b + " # the way back":     both,
		a + " > /dev/null 2>&1\n" + b:       both,
		a + " 2>/dev/null &\n" + b:          both,
		a + "\r" + b + "\r":                 both,
		a + "\r\n" + b + "\r\n":             both,
		"set -e; " + a + "\n#" + b:          "esp-00000001",
		"if true; then " + a + "; fi; " + b: both,
		strings.ReplaceAll(a, "ip xfrm state add", "ip x s a"):                              "esp-00000001",
		strings.ReplaceAll(a, "ip xfrm state add", "/sbin/ip -n left xfrm sa upd"):          "esp-00000001",
		strings.ReplaceAll(a, "ip xfrm state add", "sudo ip netns exec l ip xf st add"):     "esp-00000001",
		strings.ReplaceAll(a, "dst 192.0.2.2 proto", `dst 192.0.2.2 \`+"\n   proto"):        "esp-00000001",
		strings.ReplaceAll(a, "src 192.0.2.1 dst 192.0.2.2", "dst 192.0.2.2 src 192.0.2.1"): "esp-00000001",
		strings.ReplaceAll(a, "ip xfrm state add", `ip xfrm \`+"\nstate add"):               "esp-00000001",
		a + "\nip xfrm policy add src 10.0.0.1 dst 10.0.0.2 dir out tmpl proto esp\n" + b:   both,
	} {
		read, err := Read("script", []byte(text))
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		var names []string
		for _, s := range read.All {
			names = append(names, s.Name)
			if s.Src.String() != "192.0.2.1" || s.Dst.String() != "192.0.2.2" || s.EncryptionKey.Len() != 20 {
				t.Errorf("%s: %s", text, describe(s))
			}
		}
		if got := strings.Join(names, " "); got != want || len(read.Notes) != 0 {
			t.Errorf("%s:\n%s, %q, want %s", text, got, read.Notes, want)
		}
	}
}

// A selector is taken over whole, or what is left out is said, or the SA is refused:
// none becomes wider in silence.
func TestSelectors(t *testing.T) {
	for sel, want := range map[string]string{
		"src 10.0.0.1 dst 10.1.0.0/16":                    "{10.0.0.1/32 10.1.0.0/16 0 {0 0} {0 0}}",
		"src 0.0.0.0/0 dst 0.0.0.0/0 proto gre":           "{invalid Prefix invalid Prefix 47 {0 0} {0 0}}",
		"src ::/0 dst ::1 proto ospf":                     "{invalid Prefix ::1/128 89 {0 0} {0 0}}",
		"src ::/0 dst ::/0 proto ipv6-icmp type 128":      "{invalid Prefix invalid Prefix 58 {0 0} {0 0}} the selector's type cannot be held and is left out: esp-00000001",
		"src 10.0.0.1/32 dst 10.0.0.2/32 dev eth0":        "{10.0.0.1/32 10.0.0.2/32 0 {0 0} {0 0}} the selector's dev cannot be held and is left out: esp-00000001",
		"src 10.0.0.1/32 dst 10.0.0.2/32 proto nonsense":  `line 1: esp-00000001 skipped: sel: expected a protocol of /etc/protocols, found "nonsense"`,
		"src 10.0.0.300/32 dst 10.0.0.2/32":               `line 1: esp-00000001 skipped: sel: expected an address or a prefix, found "10.0.0.300/32"`,
		"src 10.0.0.1/32 dst 10.0.0.2/32 proto tcp dport": `line 1: esp-00000001 skipped: sel: expected a port or a range FIRST-LAST, found ""`,
		"src 10.0.0.1/32 dst 10.0.0.2/32 uuid 7":          `line 1: esp-00000001 skipped: sel: "uuid" is unknown there`,
	} {
		text := "src 192.0.2.1 dst 192.0.2.2\n\tproto esp spi 0x1 mode tunnel\n\tauth sha1 0x000102030405060708090a0b0c0d0e0f10111213\n\tenc ecb(cipher_null)\n\tsel " + sel + "\n"
		read, err := Read("x", []byte(text))
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, s := range read.All {
			got = append(got, fmt.Sprint(*s.Selector))
		}
		if got := strings.Join(append(got, read.Notes...), " "); got != want {
			t.Errorf("sel %s: %s\nwant %s", sel, got, want)
		}
	}
}

// What ip xfrm monitor says comes in the order of time: an SA is born, changed, and
// ends; one that has ended is still there for a capture.
func TestMonitor(t *testing.T) {
	state := func(spi int, key string) string {
		return fmt.Sprintf("src 192.0.2.1 dst 192.0.2.2\n\tproto esp spi 0x%d reqid 1 mode tunnel\n\treplay-window 32\n\taead rfc4106(gcm(aes)) 0x%s 128\n", spi, strings.Repeat(key, 20))
	}
	text := state(1, "11") + "Updated " + state(2, "22") + "Timestamp: Tue Sep 2 2025\nExpired " + state(1, "11") + "\thard 0\n" +
		"Deleted " + state(1, "11") + "Expired " + state(3, "33") + "\thard 1\n" +
		"acquire proto esp\n  sel src 192.0.2.1/32 dst 192.0.2.2/32\nAsync event (0x20)  timer expired\n\tsrc 192.0.2.1 dst 192.0.2.2  reqid 0x1 protocol esp  SPI 0x2\n" +
		"Updated " + state(2, "44") + state(1, "55")
	read, err := Read("x", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, s := range read.All {
		got = append(got, fmt.Sprintf("%s %x", s.Name, s.EncryptionKey.Bytes()[0]))
	}
	if want := []string{"esp-00000001 55", "esp-00000002 44", "esp-00000003 33"}; !slices.Equal(got, want) {
		t.Errorf("found %q, want %q; notes %q", got, want, read.Notes)
	}
	if want := []string{"esp-00000003"}; !slices.Equal(read.Ended, want) {
		t.Errorf("ended: %q, want %q", read.Ended, want)
	}
}

// What is no list of SAs is called what it is, with what to give instead, and not
// quoted. Only where nothing came does it say who may see SAs.
func TestInstead(t *testing.T) {
	for text, want := range map[string]string{
		"": "ip xfrm state shows SAs to root alone",
		"192.0.2.1 192.0.2.2 : PSK \"5ec2e7c0ffee\"\n":                          "found a secret of IKE",
		"alice : PSK 0s5ec2e7c0ffee\n":                                          "found a secret of IKE",
		"secrets {\n  ike-1 {\n    secret = 5ec2e7c0ffee\n  }\n}\n":             "found a secret of IKE",
		"0x12345678@192.0.2.1 3des-cbc-hmac96:0x5ec2e7c0ffee\n":                 "found a file for tcpdump -E",
		"0011223344556677,8899aabbccddeeff,5ec2e7c0ffee,5ec2,\"AES-CBC-128\"\n": "found Wireshark's table ikev2_decryption_table",
		"home: #1, ESTABLISHED, IKEv2, 9c1e3ff0ba3ffc6e_i* 7c5b1a2bd46fd2a1_r\n  home: #1, reqid 1, INSTALLED, TUNNEL, ESP:AES_GCM_16-128\n": "found what swanctl --list-sas prints",
		"list-sa event {gw {uniqueid=1 version=2 state=ESTABLISHED child-sas {net-1 {name=net spi-in=c3b0b3d6}}}}\n":                         "found what swanctl --list-sas prints",
		"Security Associations (1 up, 0 connecting):\n net{1}:  INSTALLED, TUNNEL, reqid 1, ESP SPIs: c3b0b3d6_i cf2c6c2d_o\n":               "found what ipsec statusall prints",
		"006 #2: \"west-east\", type=ESP, add_time=1550000000, inBytes=84, outBytes=84, id='@east'\n":                                        "found what ipsec whack or Libreswan's log prints",
		"000 \"west\": 192.0.2.0/24===192.1.2.45...192.1.2.23===192.0.1.0/24; erouted\n":                                                     "found what ipsec whack or Libreswan's log prints",
		"Dec 30 21:58:52 VPN pluto[11723]: \"a\" #2: IPsec SA established tunnel mode {ESPinUDP=>0x7a2f0ef1 <0x53f2d4ba}\n":                  "found what ipsec whack or Libreswan's log prints",
		"interface: Tunnel0\n    Crypto map tag: a, local addr 10.1.1.1\n     inbound esp sas:\n      spi: 0x4E8C2E4A(1317809738)\n":         "found what show crypto ipsec sa prints",
		"  Total active tunnels: 1\n  ID    Algorithm       SPI      Life:sec/kb  Mon lsys Port  Gateway\n":                                  "found what show security ipsec",
		"Flags: H - hw-aead, A - AH, E - ESP\n #    SPI         STATE  SRC-ADDRESS    DST-ADDRESS    AUTH-ALGORITHM\n":                       "found what installed-sa print of RouterOS prints",
		"esp tunnel from 192.0.2.1 to 192.0.2.2 spi 0x12345678 auth hmac-sha2-256 enc aes-256\n":                                             "found what ipsecctl -s sa prints",
		"[0] sa 10 (0xa) spi 1000 (0x000003e8) protocol:esp flags:[tunnel ]\n":                                                               "found what show ipsec sa of VPP prints",
		"Nov 28 12:00:00 moon root: src 192.0.2.1 dst 192.0.2.2\nNov 28 12:00:00 moon root:  proto esp spi 0x00001001 reqid 1 mode tunnel\n": "found lines of ip xfrm state with something before each",
		"Sep 13 18:12:11 gw charon-systemd[139949]: selected proposal: ESP:AES_CBC_256/HMAC_SHA2_256_128/ECP_256/NO_EXT_SEQ\n":               "found charon's lines in the systemd journal",
		"\n\r\r\n\x1c\x00\x00\x00": "found a capture",
		"@0 esp tunnel from 192.0.2.1 to 192.0.2.2 spi 0x12345678 auth hmac-sha1 enc aes\n":                                     "found what ipsecctl -s sa prints",
		"sadb_dump: satype esp vers 2 len 44 seq 0 pid 0\n\tsa: spi 0x12345678 auth hmac-sha2-256 enc aes\n":                    "found what ipsecctl -s sa prints",
		"esp from 192.0.2.1 to 192.0.2.2 spi 0xdeadbeef:0xbeefdead authkey 0x5ec2e7c0ffee enckey 0x5ec2e7c0ffee\n":              "found keys of SAs in a notation that tapsec does not read",
		"ipsec sa add 10 spi 1000 esp crypto-alg aes-gcm-128 crypto-key 5ec2e7c0ffee tunnel src 192.0.2.1 dst 192.0.2.2\n":      "found keys of SAs in a notation that tapsec does not read",
		"sa in 5 aead_algo aes-128-gcm aead_key 5e:c2:e7:c0:ff:ee mode ipv4-tunnel src 172.16.2.5 dst 172.16.1.5\n":             "found keys of SAs in a notation that tapsec does not read",
		`uat:esp_sa:\"IPv4\",\"192.0.2.1\",\"192.0.2.2\",\"0x00001001\",\"AES-GCM [RFC4106]\",\"0x5ec2e7c0ffee\",\"NULL\",\"\"`: "found an option of tshark",
		"CLIENT_RANDOM " + strings.Repeat("ab", 32) + " " + strings.Repeat("cd", 48) + "\n":                                     "found the secrets of TLS",
		"the key is 5ec2e7c0ffee\n": "found no SA in 24 bytes",
	} {
		_, err := Read("x", []byte(text))
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "5ec2e7c0ffee") {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
		if err != nil && text != "" && strings.Contains(err.Error(), "root alone") {
			t.Errorf("%q: the hint is out of place: %v", text, err)
		}
	}
}

// A short key is told how long it should be, and no list of all suites.
func TestShortKey(t *testing.T) {
	for line, want := range map[string]string{
		"enc cbc(aes) 0x0102030405":                                     "expected a key of 16, 24 or 32 bytes, found 5",
		"aead rfc4106(gcm(aes)) 0x0102030405060708 128":                 "expected a key of 20, 28 or 36 bytes, found 8",
		"aead rfc7539esp(chacha20,poly1305) 0x010203 128":               "expected a key of 36 bytes, found 3",
		"aead rfc4106(gcm(aes)) 0x" + strings.Repeat("ab", 20) + " 100": "expected an ICV of 64, 96 or 128 bits, found 100",
	} {
		read, err := Read("x", []byte("src 192.0.2.1 dst 192.0.2.2\n\tproto esp spi 0x1 mode tunnel\n\t"+line+"\n"))
		if err != nil || len(read.Notes) != 1 || !strings.Contains(read.Notes[0], want) {
			t.Errorf("%s: %q, %v; want %q", line, read.Notes, err, want)
		}
	}
}

// FortiGate says where the ends are, in which direction an SA goes, and how far it is.
func TestFortiGate(t *testing.T) {
	const text = `name=X ver=2 serial=2 192.0.2.1:4500->198.51.100.1:4500 tun_id=198.51.100.1
natt: mode=keepalive draft=32 interval=10 remote_port=4500
proxyid=X proto=47 sa=1 ref=2 serial=1 auto-negotiate transport-mode
  SA:  ref=3 options=30202 type=00 soft=0 mtu=1438 expire=3148/0B replaywin=2048
       seqno=28ba esn=1 replaywin_lastseq=00000012 qat=0 rekey=0 hash_search_len=1
  dec: spi=200e9861 esp=aes-gcm key=36 000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f20212223
       ah=null key=0 
  enc: spi=c16ed423 esp=null key=0 
       ah=sha256 key=32 000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f
  dec:pkts/bytes=1237/1128, enc:pkts/bytes=2/296
`
	read, err := Read("x", []byte(text))
	if err != nil || len(read.Notes) != 0 {
		t.Fatal(read, err)
	}
	want := []string{
		"esp-200e9861 esp transport aes256gcm16 invalid IP>192.0.2.1 window 2048 esn in seq 0x12 encap",
		"esp-c16ed423 esp transport null-sha256 invalid IP>198.51.100.1 window 64 esn out oseq 0x28b9 encap",
	}
	for i, s := range read.All {
		if describe(s) != want[i] {
			t.Errorf("%s\nwant %s", describe(s), want[i])
		}
	}
}

// The ring of a kernel's bitmap, whose word of the highest numbers may be any, is
// turned so that bit 0 is the highest number.
func TestRing(t *testing.T) {
	for _, window := range []uint64{32, 64, 100, 128, 4096} {
		for _, seq := range []uint64{5, window, 3*window + 7, 1<<32 | 2*window} {
			ring := make([]uint32, (window+31)/32)
			received := func(n uint64) bool { return n == seq || n > 0 && n%3 != 0 }
			for n := seq - min(seq-1, window-1); n <= seq; n++ {
				if at := (uint64(uint32(seq)-1)%window + window - (seq - n)) % window; received(n) {
					ring[at/32] |= 1 << (at % 32)
				}
			}
			var words strings.Builder
			for i := len(ring) - 1; i >= 0; i-- { // ip prints the highest word first
				fmt.Fprintf(&words, " %08x", ring[i])
			}
			text := fmt.Sprintf("src 192.0.2.1 dst 192.0.2.2\n\tproto esp spi 0x1 mode tunnel\n\treplay-window 0 flag esn\n\tauth sha1 0x%s\n\tenc ecb(cipher_null)\n"+
				"\tanti-replay esn context:\n\t seq-hi 0x%x, seq 0x%x, oseq-hi 0x0, oseq 0x0\n\t replay_window %d, bitmap-length %d\n\t%s\n",
				strings.Repeat("11", 20), seq>>32, uint32(seq), window, len(ring), words.String())
			read, err := Read("x", []byte(text))
			if err != nil || len(read.All) != 1 {
				t.Fatalf("window %d, seq %#x: %v %v", window, seq, read, err)
			}
			s := read.All[0]
			if s.Seq != seq || s.Window != uint32(window) {
				t.Errorf("window %d, seq %#x: %s", window, seq, describe(s))
			}
			for i := range s.Bitmap.Len() {
				if s.Bitmap.Has(i) != received(seq-uint64(i)) {
					t.Errorf("window %d, seq %#x: the number %d below is wrong in %s", window, seq, i, s.Bitmap)
				}
			}
			if least := int(min(window, seq)) - 3; s.Bitmap.Len() < least {
				t.Errorf("window %d, seq %#x: %d bits, expected %d at least", window, seq, s.Bitmap.Len(), least)
			}
		}
	}
}

// No text takes time by the square of its length: each of these would take longer than a
// test may.
func TestLongTexts(t *testing.T) {
	const state = "src 192.0.2.1 dst 192.0.2.2\n\tproto esp spi 0x1 mode tunnel\n\treplay-window 0 flag esn\n\tauth sha1 0x1111111111111111111111111111111111111111\n\tenc ecb(cipher_null)\n"
	for name, more := range map[string]string{
		"continued":        strings.Repeat("foo \\\n", 500_000),
		"command":          strings.Repeat("ip xfrm state add \\\n", 200_000),
		"a window's words": "\tanti-replay esn context:\n\t replay_window 4294967295, bitmap-length 999999999\n\t" + strings.Repeat("ffffffff ", 3_000_000),
	} {
		read, err := Read("x", []byte(state+more))
		if err != nil || len(read.All) != 1 {
			t.Errorf("%s: %v, %v", name, read, err)
		}
	}
}

// Every form refuses keys that a kernel has blanked.
func TestRedacted(t *testing.T) {
	zeros := strings.Repeat("00", 20)
	for _, text := range []string{
		"src 192.0.2.1 dst 192.0.2.2\n\tproto esp spi 0x1 mode tunnel\n\taead rfc4106(gcm(aes)) 0x" + zeros + " 128\n",
		"src 192.0.2.1 dst 192.0.2.2\n\tproto esp spi 0x1 mode tunnel\n\tauth-trunc hmac(sha1) 0x" + zeros + " 96\n\tenc ecb(cipher_null)\n",
		"ip xfrm state add src 192.0.2.1 dst 192.0.2.2 proto ah spi 1 auth sha1 0x" + zeros,
		`"IPv4","*","*","0x1","NULL","","HMAC-SHA-1-96 [RFC2404]","0x` + zeros + `"`,
		"192.0.2.1 192.0.2.2\n\tah mode=tunnel spi=1(0x00000001) reqid=0(0x00000000)\n\tA: hmac-sha1 " + zeros + "\n",
		"  dec: spi=00000001 esp=null key=0\n       ah=sha1 key=20 " + zeros + "\n",
	} {
		read, err := Read("x", []byte(text))
		if err != nil || len(read.All) != 0 || len(read.Notes) == 0 || !strings.Contains(read.Notes[0], "lockdown") {
			t.Errorf("%s\n%v, %v", text, read, err)
		}
	}
}

// Of several that fit, the newest is the last: that is the first which ip lists.
func TestNewestLast(t *testing.T) {
	sas, _ := read(t, "field/c17-rekey.xfrm")
	if last := sas[len(sas)-1]; last.SPI != 0xb0009002 {
		t.Errorf("the last is %s", last)
	}
	commands := new(bytes.Buffer)
	if err := WriteXFRM(commands, sas); err != nil {
		t.Fatal(err)
	}
	again, _, err := split(Read("commands", commands.Bytes()))
	if err != nil || !slices.EqualFunc(again, sas, func(a, b *sa.SA) bool { return a.ID() == b.ID() }) {
		t.Errorf("%v, %v", again, err)
	}
}

// A network where the table has room for one cannot be held, and is said.
func TestTableNetworks(t *testing.T) {
	read, err := Read("x", []byte(`"IPv4","192.0.2.0/24","192.0.2.2","0x1","AES-GCM [RFC4106]","0x`+strings.Repeat("ab", 20)+`","NULL","0x"`))
	if err != nil || len(read.All) != 1 || read.All[0].Src.IsValid() {
		t.Fatal(read, err)
	}
	if want := "a network in the place of an address cannot be held and is left out: esp-00000001"; !slices.Contains(read.Notes, want) {
		t.Errorf("notes %q", read.Notes)
	}
}
