package keys

import (
	"net/netip"
	"strings"
	"testing"

	"tapsec/sa"
)

const (
	unseenKey   = "0x000102030405060708090a0b0c0d0e0f10111213"
	unseenState = "src 192.0.2.1 dst 192.0.2.2\n\tproto esp spi 0x00001001 reqid 1 mode tunnel\n\treplay-window 32 flag af-unspec\n\taead rfc4106(gcm(aes)) " + unseenKey + " 128\n"
	unseenAdd   = "ip xfrm state add src 192.0.2.1 dst 192.0.2.2 proto esp spi 0x1001 mode tunnel aead 'rfc4106(gcm(aes))' " + unseenKey + " 128"
	unseenRow   = `"IPv4","192.0.2.1","192.0.2.2","0x00001001","AES-GCM with 16 octet ICV [RFC4106]","` + unseenKey + `","NULL",""`
	unseenDump  = "192.0.2.1 192.0.2.2\n\tesp mode=tunnel spi=4097(0x00001001) reqid=0(0x00000000)\n\tE: aes-gcm-16  00010203 04050607 08090a0b 0c0d0e0f 10111213\n" +
		"\tseq=0x00000000 replay=4 flags=0x00000000 state=mature\n\tsadb_seq=1 pid=1 refcnt=1\n"
	unseenSetkey = "add 192.0.2.1 192.0.2.2 esp 0x1001 -m tunnel -E aes-gcm-16 " + unseenKey
)

// What a text says of an SA beside what an SA holds is said, and what contradicts itself is
// refused: nothing is left out, and nothing guessed at, in silence.
func TestNothingLeftOut(t *testing.T) {
	line := func(more string) string { return unseenState + "\t" + more + "\n" }
	for text, want := range map[string]string{
		line("crypto offload parameters: dev eth0 dir in mode packet"): "",
		line("lastused 2024-08-29 09:30:00"):                           "",
		line("lifetime config:\n\t  limit: soft (INF)(bytes), hard (INF)(bytes)\n\t  expire add: soft 0(sec), hard 0(sec)\n\tlifetime current:\n\t  0(bytes), 0(packets)"): "",
		line("lifetime config:\n\t  expire add: soft 3400(sec), hard 3600(sec)"):                                                                                           "limit cannot be held",
		line("if_id 0x64"): "if_id cannot be held",
		line("pcpu-num 3"): "pcpu-num cannot be held",
		line("security context system_u:object_r:ipsec_spd_t:s0"):                             "security context cannot be held",
		line("extra-flag dont-encap-dscp oseq-may-wrap"):                                      "the flag oseq-may-wrap cannot be held",
		strings.Replace(unseenState, "af-unspec", "noecn decap-dscp af-unspec", 1):            "the flag decap-dscp cannot be held",
		strings.Replace(unseenState, "window 32", "window 20", 1):                             "a replay window of 20 packets cannot be held",
		strings.Replace(unseenState, "dst 192.0.2.2", "dst 0.0.0.0", 1):                       "a source without a destination cannot be held",
		strings.Replace(unseenState, "spi 0x00001001", "spi $SPI", 1):                         "expected an SPI of 32 bits, found a variable",
		line("encap type espintcp sport 4500 dport 4500 addr 0.0.0.0"):                        `encapsulation "espintcp" is not supported`,
		strings.Replace(unseenState, "mode tunnel", "mode iptfs", 1):                          "mode iptfs (its packets are checked as a tunnel's, and not opened) cannot be held",
		strings.Replace(unseenState, "mode tunnel", "mode beet", 1):                           `mode "beet" is not supported`,
		line("enc cbc(aes) 0x" + strings.Repeat("22", 16)):                                    "it has two ciphers",
		line("auth-trunc hmac(sha1) 0x11 96\n\tauth-trunc hmac(sha256) 0x12 128"):             "it has two integrity algorithms",
		unseenState[strings.Index(unseenState, "\n")+1:] + unseenState:                        "the line before it with its addresses, src ADDRESS dst ADDRESS, is missing",
		unseenState + unseenState[strings.Index(unseenState, "\n")+1:]:                        "the line before it with its addresses, src ADDRESS dst ADDRESS, is missing",
		strings.Join(strings.Fields(unseenState), " "):                                        "its lines have become one",
		`ssh gw "` + unseenAdd + `"`:                                                          "nor a command ip xfrm state add outside of quotes",
		unseenAdd + "\nip xfrm state delete src 192.0.2.1 dst 192.0.2.2 proto esp spi 0x1001": "esp-00001001 has ended",
		unseenAdd + "\nip xfrm state flush":                                                   "the SAs before it have ended (1)",
		unseenAdd + "\nip xfrm state deleteall proto ah":                                      "",
		"ip xfrm state flush\n" + unseenAdd:                                                   "",
		strings.Replace(unseenState, "aead rfc4106(gcm(aes)) "+unseenKey+" 128", "auth hmac(sha256) 0x"+strings.Repeat("33", 32)+"\n\tenc ecb(cipher_null)", 1): "auth hmac(sha256) is taken for ICVs of 96 bits",
		strings.Replace(unseenAdd, "aead 'rfc4106(gcm(aes))' "+unseenKey+" 128", "auth sha256 0x"+strings.Repeat("33", 32)+" enc cipher_null ''", 1) + "\n":     "",
		strings.Replace(unseenRow, "AES-GCM with 16 octet ICV [RFC4106]", "AES-GCM [RFC4106]", 1):                                                               "AES-GCM [RFC4106] does not say how long its ICV is",
		unseenRow + `,"99-bit","0"`:                                "expected sequence numbers of 32-bit or 64-bit",
		strings.Replace(unseenRow, "0x00001001", "0x????1001", 1):  "an SPI with a wildcard is not supported",
		strings.Replace(unseenRow, "IPv4", "IPv6", 1):              `expected an IPv6 address, as the first column says, found "192.0.2.1"`,
		strings.Replace(unseenRow, `"192.0.2.2"`, `"*"`, 1):        "a source without a destination cannot be held",
		strings.Replace(unseenRow, "192.0.2.2", "192.0.2.2/32", 1): "",
		strings.Replace(unseenRow, `"NULL"`, `"null"`, 1):          "",
		`"IPv4","*","*","0x1001","AES-CBC [RFC3602]","` + strings.Repeat("ab", 16) + `","HMAC-SHA-1-96 [RFC2404]","0x` + strings.Repeat("cd", 20) + `"`: "for the characters themselves",
		unseenDump: "",
		unseenDump[strings.Index(unseenDump, "\n")+1:]:                                                     "the text does not show between whom it is",
		unseenDump + "192.0.2.2 192.0.2.1\n":                                                               "the line behind its addresses, with mode and SPI, is missing",
		strings.Replace(unseenDump, "00010203", "0x00010203", 1):                                           "expected an algorithm and its key in groups of hexadecimal digits",
		unseenSetkey + " -f zero-pad;":                                                                     "",
		unseenSetkey + " -f cyclic-seq -lh 3600;":                                                          "the option -f cyclic-seq, or one that is unknown cannot be held",
		unseenSetkey + ";\ndelete 192.0.2.1 192.0.2.2 esp 0x1001;":                                         "esp-00001001 has ended",
		"flush;\n" + unseenSetkey + ";\nspdflush;\nflush esp;":                                             "the SAs before it have ended (1)",
		"  dec: spi=24c2ab68 esp=null key=0\n       ah=null key=0\n       ah=sha1 key=20 " + unseenKey[2:]: "dec: or enc: with its SPI, is missing",
		" 0   E spi=0x1001 src-address=192.0.2.1 dst-address=192.0.2.2 state=mature\n       enc-algorithm=aes-gcm enc-key-size=160\n       enc-key=\"" + unseenKey[2:] + "\"\n\n" +
			"       enc-algorithm=aes-gcm enc-key-size=160\n       enc-key=\"" + unseenKey[2:] + "\"\n": "it has two words enc-algorithm=; the line between them with spi= is missing",
		unseenState + unseenRow + "\n":                                   "it also holds what looks like esp_sa, which is not read beside xfrm",
		"05[IKE] initiating IKE_SA home[1] to 192.0.2.2\n" + unseenState: "it also holds what looks like xfrm, which is not read beside charon log",
		"06[IKE] CHILD_SA l2tp{1} established with SPIs c0000001_i 0c000002_o and TS 192.0.2.1/32 === 198.51.100.1/32": "the log does not hold the lines that add it",
	} {
		read, err := Read("x", []byte(text))
		if err != nil {
			t.Errorf("%s\n%v", text, err)
			continue
		}
		notes := strings.Join(read.Notes, "\n")
		if want == "" && (notes != "" || len(read.All) != 1) || !strings.Contains(notes, want) {
			t.Errorf("%s\n%d SAs, notes %q\nwant %q", text, len(read.All), notes, want)
		}
	}
}

// An SA that a script deletes and adds again has the keys that it was given last.
func TestAddedAgain(t *testing.T) {
	other := strings.NewReplacer("0x0001", "0xff01", "0x00010203", "0xff010203")
	for _, text := range []string{
		unseenAdd + "\nip xfrm state del src 192.0.2.1 dst 192.0.2.2 proto esp spi 0x1001\n" + other.Replace(unseenAdd),
		unseenAdd + "\nip x s f\n" + other.Replace(unseenAdd),
		unseenSetkey + ";\nflush;\n" + other.Replace(unseenSetkey) + ";",
		unseenSetkey + ";\ndeleteall 192.0.2.1 192.0.2.2 esp;\n" + other.Replace(unseenSetkey) + ";",
	} {
		read, err := Read("x", []byte(text))
		if err != nil || len(read.All) != 1 || len(read.Ended) != 0 {
			t.Errorf("%s\n%+v, %v", text, read, err)
			continue
		}
		if first := read.All[0].EncryptionKey.Bytes()[0]; first != 0xff || len(read.Former) != 1 {
			t.Errorf("%s\nthe key begins with %#x; %d former", text, first, len(read.Former))
		}
	}
}

// setkey says what an SA's packets are padded with.
func TestSetkeyPadding(t *testing.T) {
	for text, want := range map[string]bool{
		unseenSetkey + ";":               true,
		unseenSetkey + " -f seq-pad;":    true,
		unseenSetkey + " -f zero-pad;":   false,
		unseenSetkey + " -f random-pad;": false,
		unseenDump:                       true,
		strings.Replace(unseenDump, "flags=0x00000000", "flags=0x00000240", 1): false,
	} {
		read, err := Read("x", []byte(text))
		if err != nil || len(read.All) != 1 || read.All[0].PadCheck != want {
			t.Errorf("%s\n%+v, %v", text, read, err)
		}
	}
}

// A kernel's state of mode IP-TFS is an SA as its text is; BEET is none.
func TestModesOfAKernel(t *testing.T) {
	for mode, want := range map[uint8]sa.Mode{0: sa.Transport, 1: sa.Tunnel, 4: 0, 5: sa.Tunnel} {
		k := State{Src: netip.MustParseAddr("192.0.2.1"), Dst: netip.MustParseAddr("192.0.2.2"), Protocol: 50, Mode: mode, SPI: 0x1001,
			Cipher: &Algorithm{Name: "rfc4106(gcm(aes))", Key: sa.NewKey([]byte("0123456789abcdefsalt")), ICVBits: 128}}
		s, err := k.SA()
		if (err == nil) != (want != 0) || err == nil && s.Mode != want {
			t.Errorf("mode %d: %v, %v", mode, s, err)
		}
	}
}
