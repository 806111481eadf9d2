package keys

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

// What setkey prints and reads, byte by byte: strings and digits as keys, keys that go on in the
// next line, ports, FreeBSD's flag of extended sequence numbers. A broken command is refused.
func TestSetkeyKeys(t *testing.T) {
	const up = "000102030405060708090a0b0c0d0e0f10111213"
	for file, want := range map[string][]string{
		"setkey-add.txt": {
			fmt.Sprintf("esp-00001000 %x %x", "cle1_cle1_crik_crok_cle1", "cle1pouetpouetpouetpouetpouecle1"),
			"esp-00000301 40127f0a79fda7311b3c5344f5d5bd9a0fcd8bd926caae5f d1b9a27cb7ab9562a0c8ad21f82be8b8",
			"esp-01565786 fedcba9876543210fedcba9876543210 10fedcba9876543210fedcba9876543210fedcba",
			"esp-0c7042de " + up + " ",
			"ah-00005fb4  " + up + "1415161718191a1b1c1d1e1f202122232425262728292a2b2c2d2e2f",
			"esp-00002002  10fedcba9876543210fedcba9876543210fedcba",
		},
		"setkey-freebsd.txt": {
			"esp-00001002 " + up + "1415161718191a1b1c1d1e1f " + strings.Repeat(up+"1415161718191a1b1c1d1e1f", 2),
			"esp-00001003 3132333435363738393031323334353637383930 ",
		},
	} {
		read := must(Read(file, must(os.ReadFile("testdata/field/"+file))))
		var got []string
		for _, s := range read.All {
			got = append(got, fmt.Sprintf("%s %x %x", s.Name, s.EncryptionKey.Bytes(), s.IntegrityKey.Bytes()))
			if src, dst := s.EncapPorts(); s.Encap && file == "setkey-freebsd.txt" && (src != 4500 || dst != 19765) {
				t.Errorf("%s: ports %d and %d", s.Name, src, dst)
			}
		}
		if strings.Join(got, "\n") != strings.Join(want, "\n") {
			t.Errorf("%s:\n%s\nwant\n%s", file, strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
	}
}

// Texts that a terminal, a mail or the end of a file has broken: half a key is never taken for a
// shorter one in silence.
func TestBrokenKeys(t *testing.T) {
	const half = "000102030405060708090a0b0c0d0e0f"
	state := "src 192.0.2.1 dst 192.0.2.2\n\tproto esp spi 0x1 mode tunnel\n\tauth-trunc hmac(sha256) 0x" + half + half + " 128\n\tenc cbc(aes) 0x" + half
	forti := "name=a ver=1 serial=1 192.0.2.1:0->192.0.2.2:0\n  dec: spi=00000001 esp=aes key=32 " + half + "\n" + half + "\n       ah=sha256 key=32 " + half + half + "\n"
	for text, want := range map[string]string{
		state + "\n" + half + "\n":            "line 1: esp-00000001 skipped: the line with its key was broken in two; make it one again",
		state + " " + half + "\n":             "line 1: esp-00000001 skipped: enc: expected one word behind the algorithm, which is the key, found 2",
		state:                                 "the text ends in the key, which may be cut short: esp-00000001",
		state + "\n":                          "",
		state + " (128 bits)\n":               "",
		forti:                                 `line 2: esp-00000001 skipped: expected a key of 32 bytes, found 32 hexadecimal digits; if its line was broken in two, make it one again`,
		strings.Replace(forti, "\n0", "0", 1): "",
		"ip xfrm state add src 192.0.2.1 dst 192.0.2.2 proto esp spi 0x1 mode tunnel auth sha256 0x" + half + half + " enc 'cbc(aes)' 0x" + half + " " + half + "\n": "line 1: esp-00000001 skipped: enc: expected one word behind the algorithm, which is the key, found 2",
	} {
		if got := strings.Join(must(Read("x", []byte(text))).Notes, "\n"); got != want {
			t.Errorf("%s:\n%s\nwant\n%s", text, got, want)
		}
	}
	a := string(must(os.ReadFile("testdata/charon-netlink-a.log")))
	lost := strings.Replace(a, "12[CHD]   16: A4 EA 27 9B 7F 13 4A A5 6D 08 09 09 75 CD 72 CB  ..'...J.m...u.r.", "12[CHD]   32: A4 EA 27 9B 7F 13 4A A5 6D 08 09 09 75 CD 72 CB  ..'...J.m...u.r.", 1)
	if notes := strings.Join(must(Read("x", []byte(lost))).Notes, "\n"); lost == a || !strings.Contains(notes, "does not hold its keys to their ends") {
		t.Error(notes)
	}
}
