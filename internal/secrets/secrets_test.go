package secrets

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"tapsec/capture"
	"tapsec/sa"
)

// every is an SA of each suite there is.
func every() (all []*sa.SA) {
	for _, p := range []sa.Protocol{sa.ESP, sa.AH} {
		for i, su := range sa.Suites(p) {
			key := func(n int) sa.Key { return sa.NewKey([]byte(strings.Repeat(string(rune('a'+i%26)), n))) }
			s := &sa.SA{
				Name: fmt.Sprintf("%s %s", p, su.Name), SPI: 0x1000 + uint32(i), Protocol: p, Mode: sa.Auto, Suite: su, PadCheck: true,
				Dst: netip.MustParseAddr("2001:db8::2"), EncryptionKey: key(su.EncryptionKeyLen()), IntegrityKey: key(su.IntegrityKeyLen()), Window: 64,
			}
			if len(s.Check(false, true)) == 0 {
				all = append(all, s)
			}
		}
	}
	return all
}

// What a capture carries are the SAs that it was given; Wireshark's rows alone are
// those that they can hold.
func TestRoundTrip(t *testing.T) {
	all := every()
	carried, err := Of(all, nil)
	if err != nil || len(carried) != 2 {
		t.Fatalf("%d secrets, %v", len(carried), err)
	}
	c, err := Config("x.pcapng", carried)
	if err != nil || len(c.SAs) != len(all) {
		t.Fatalf("%v", err)
	}
	for i, s := range c.SAs {
		if s.Name != all[i].Name || !s.Same(all[i]) {
			t.Errorf("%s became %s", all[i], s)
		}
	}
	rows, err := Config("x.pcapng", carried[1:])
	if err != nil || len(rows.SAs) < 10 {
		t.Fatalf("%v", err)
	}
	for _, s := range rows.SAs {
		if s.Protocol != sa.ESP || s.Mode != sa.Auto || s.EncryptionKey.Len() != s.Suite.EncryptionKeyLen() {
			t.Errorf("a row became %s", s)
		}
	}
	for i, line := range strings.Split(strings.TrimSpace(string(carried[1].Data)), "\n")[1:] {
		if n := strings.Count(line, `","`) + 1; n != 10 {
			t.Errorf("row %d has %d columns", i, n)
		}
	}
	others := []capture.Secret{{Type: capture.SecretESP, Data: []byte("theirs")}}
	if beside, err := Of(all, others); err != nil || len(beside) != 1 {
		t.Errorf("%d secrets beside rows of others, %v", len(beside), err)
	}
}

// A capture from elsewhere opens no files here, says nothing of keys, and is no
// configuration but for its SAs.
func TestConfigOfOthers(t *testing.T) {
	const sas = "sas:\n  - {spi: 0x1001, dst: 192.0.2.1, protocol: esp, mode: tunnel, suite: aes128gcm16, encryption_key: "
	for text, want := range map[string]string{
		sas + "file:/etc/hostname}\n":                       "may name no files",
		sas + "0x0123456789abcdef0123456789abcdef012345}\n": "needs 20 bytes",
		"sas: [": "expected YAML",
	} {
		_, err := Config("x.pcapng", []capture.Secret{{Type: capture.SecretSAs, Data: []byte(text)}})
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "0123456789abcdef") {
			t.Errorf("%v, expected %q", err, want)
		}
	}
	if _, err := Config("x.pcapng", []capture.Secret{{Type: capture.SecretESP, Data: []byte(sas + "file:/etc/hostname}\n")}}); err == nil || !strings.Contains(err.Error(), "rows of the table") {
		t.Errorf("a configuration among the rows: %v", err)
	}
	c, err := Config("x.pcapng", []capture.Secret{{Type: 0x544c534b, Data: []byte("TLS")},
		{Type: capture.SecretSAs, Data: []byte("profile: mlx5-crypto\nqueues: 7\n" + sas + "0x0123456789abcdef0123456789abcdef01234567}\n")}})
	if err != nil || c.Queues != 1 || c.Profile.Name != "full" || len(c.SAs) != 1 {
		t.Errorf("%+v, %v", c, err)
	}
	if c, err := Config("x.pcapng", nil); c != nil || err != nil {
		t.Errorf("of nothing %v, %v", c, err)
	}
}

// What a capture cannot carry is refused before it is written.
func TestTooMany(t *testing.T) {
	many := slices.Repeat(every()[:1], 8000)
	if _, err := Of(many, nil); err == nil || !strings.Contains(err.Error(), "8000 SAs take") {
		t.Errorf("%v", err)
	}
}
