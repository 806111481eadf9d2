package outbound_test

import (
	"bytes"
	_ "embed"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"

	"tapsec/internal/lab/rig"
	"tapsec/sa"
)

// scapyPython is Debian's: another python3 on the path has no python3-scapy.
const scapyPython = "/usr/bin/python3"

//go:embed testdata/judge.py
var judgeScript string

// needScapy skips a test where scapy is missing, or fails it where peers are
// required.
func needScapy(t *testing.T) {
	t.Helper()
	err := exec.Command(scapyPython, "-c", "import scapy.layers.ipsec").Run()
	if err != nil {
		rig.Missing(t, fmt.Sprintf("scapy is missing: apt-get install python3-scapy (%v)", err))
	}
}

// What scapy calls the algorithms that it has. Of GCM it has the 16-byte ICV
// only; DES it does as 3DES with one key.
var (
	scapyCiphers = map[sa.Cipher]string{
		sa.Null: "NULL", sa.DESCBC: "DES", sa.TripleDESCBC: "3DES", sa.AESCBC: "AES-CBC", sa.AESCTR: "AES-CTR",
		sa.AESGCM: "AES-GCM", sa.AESCCM: "AES-CCM", sa.ChaCha20Poly1305: "CHACHA20-POLY1305",
	}
	scapyMACs = map[sa.Integrity]string{
		sa.NoIntegrity: "NULL", sa.HMACMD5: "HMAC-MD5-96", sa.HMACSHA1: "HMAC-SHA1-96", sa.HMACSHA256: "SHA2-256-128",
		sa.HMACSHA384: "SHA2-384-192", sa.HMACSHA512: "SHA2-512-256", sa.AESCMAC: "AES-CMAC-96",
	}
)

// scapySA is an SA as judge.py reads it.
type scapySA struct {
	Proto    string `json:"proto"`
	SPI      uint32 `json:"spi"`
	Crypt    string `json:"crypt"`
	CryptKey string `json:"crypt_key"`
	ICV      int    `json:"icv"`
	Auth     string `json:"auth"`
	AuthKey  string `json:"auth_key"`
	Tunnel   bool   `json:"tunnel"`
	Encap    bool   `json:"encap"`
	ESN      bool   `json:"esn"`
	High     uint32 `json:"high"`
}

// scapyKnows tells whether scapy 2.5.0 can judge the SA. It leaves the high
// half of ESN out of ESP's HMACs, and has no truncation but the usual one.
func scapyKnows(a *sa.SA) bool {
	su := a.Suite
	mac := scapyMACs[su.Integrity] != "" && !strings.HasSuffix(su.Name, "sha256_96")
	if a.Protocol == sa.AH {
		return mac
	}
	if su.Cipher == sa.AESGCM && su.ICVLen != 16 || a.ESN && su.Integrity != sa.NoIntegrity {
		return false
	}
	return mac && scapyCiphers[su.Cipher] != ""
}

func forScapy(a *sa.SA) scapySA {
	s := scapySA{
		Proto: a.Protocol.String(), SPI: a.SPI, Auth: scapyMACs[a.Suite.Integrity],
		CryptKey: hex.EncodeToString(a.EncryptionKey.Bytes()),
		AuthKey:  hex.EncodeToString(a.IntegrityKey.Bytes()),
		Tunnel:   a.Mode == sa.Tunnel && a.Bundle == "", Encap: a.Encap, ESN: a.ESN, High: a.SeqHigh,
	}
	if a.Protocol == sa.ESP {
		s.Crypt = scapyCiphers[a.Suite.Cipher]
		if a.Suite.Integrity == sa.NoIntegrity {
			s.ICV = a.Suite.ICVLen
		}
	}
	return s
}

// judge collects cases and has scapy open them all at once.
type judge struct {
	names []string
	lines bytes.Buffer
}

func (j *judge) add(t *testing.T, name string, packet []byte, sas ...*sa.SA) {
	t.Helper()
	j.addSealed(t, name, seal(t, packet, sas...), packet, sas...)
}

func (j *judge) addSealed(t *testing.T, name string, sealed, want []byte, sas ...*sa.SA) {
	t.Helper()
	outermostFirst := []scapySA{}
	for _, a := range sas {
		outermostFirst = append([]scapySA{forScapy(a)}, outermostFirst...)
	}
	j.names = append(j.names, name)
	err := json.NewEncoder(&j.lines).Encode(map[string]any{
		"sealed": hex.EncodeToString(sealed),
		"want":   hex.EncodeToString(want),
		"sas":    outermostFirst,
	})
	if err != nil {
		t.Fatal(err)
	}
}

// verdicts are judge.py's, one for each case.
func (j *judge) verdicts(t *testing.T) []string {
	t.Helper()
	cmd := exec.Command(scapyPython, "-c", judgeScript)
	cmd.Stdin, cmd.Stderr = &j.lines, os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	verdicts := strings.Split(strings.TrimSpace(string(out)), "\n")
	if len(verdicts) != len(j.names) {
		t.Fatalf("%d verdicts on %d packets", len(verdicts), len(j.names))
	}
	return verdicts
}

func (j *judge) allGood(t *testing.T) {
	t.Helper()
	for i, v := range j.verdicts(t) {
		if v != "ok" {
			t.Errorf("%s: %s", j.names[i], v)
		}
	}
	t.Logf("scapy judged %d packets", len(j.names))
}

// A judge that approves of everything would prove nothing.
func TestScapySeesFaults(t *testing.T) {
	needScapy(t)
	var j judge
	for _, k := range stacks(4, 6, "aes128gcm16", "sha256")[1:] {
		packet := udp(4, 50)
		sealed := seal(t, packet, k.sas...)
		sealed[len(sealed)-1] ^= 1
		j.addSealed(t, k.name, sealed, packet, k.sas...)
	}
	for i, v := range j.verdicts(t) {
		if !strings.Contains(v, "IPSecIntegrityError") && !strings.Contains(v, "UDP checksum") {
			t.Errorf("%s: %q on a packet with a bit flipped", j.names[i], v)
		}
	}
}

// Every suite that scapy has, in both modes and IP versions, with ESN and UDP
// encapsulation.
func TestScapySuites(t *testing.T) {
	needScapy(t)
	var j judge
	for _, p := range []sa.Protocol{sa.ESP, sa.AH} {
		for _, su := range sa.Suites(p) {
			for i := range 32 {
				addVariant(t, &j, p, su.Name, i)
			}
		}
	}
	j.allGood(t)
}

// addVariant reads the bits of i: inner and outer version, mode, ESN, encap.
func addVariant(t *testing.T, j *judge, p sa.Protocol, suite string, i int) {
	bit := func(n int) bool { return i>>n&1 != 0 }
	inner, outer := 4+2*(i&1), 4+2*(i>>1&1)
	ends, mode := gateways[outer], sa.Tunnel
	if bit(2) {
		ends, mode = hosts[inner], sa.Transport
	}
	a := newSA(0x1000, p, mode, suite, ends)
	if a.ESN = bit(3); a.ESN {
		a.SeqHigh = 0x01020304
	}
	a.Encap = bit(4)
	if a.Encap && p == sa.AH || mode == sa.Transport && inner != outer || !scapyKnows(a) {
		return
	}
	j.add(t, fmt.Sprintf("%s, %s, %d in %d, ESN %v, UDP %v", suite, mode, inner, outer, a.ESN, a.Encap), udp(inner, 50+i), a)
}

// Every stack of SAs, with options and extension headers.
func TestScapyStacks(t *testing.T) {
	needScapy(t)
	var j judge
	for _, suites := range [][2]string{{"aes128gcm16", "sha256"}, {"aes256-sha512", "sha384"}, {"chacha20poly1305", "aescmac"}} {
		for _, inner := range []int{4, 6} {
			for _, outer := range []int{4, 6} {
				for _, k := range stacks(inner, outer, suites[0], suites[1]) {
					for kind, packet := range packets(inner) {
						j.add(t, fmt.Sprintf("%s, %d in %d, %s, %s", k.name, inner, outer, kind, suites), packet, k.sas...)
					}
				}
			}
		}
	}
	j.allGood(t)
}
