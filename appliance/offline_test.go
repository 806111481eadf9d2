package appliance_test

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"tapsec/appliance"
	"tapsec/configs"
	"tapsec/internal/lab/forge"
	"tapsec/internal/outbound"
	"tapsec/sa"
	"tapsec/status"
)

// monitored is what ip -t xfrm monitor, or with -ts the form given, prints of one SPI
// under three keys, half an hour each.
func monitored(form string) string {
	start := time.Date(2026, 11, 5, 9, 0, 0, 0, time.Local)
	var b strings.Builder
	for i := range 3 {
		for _, event := range []string{"Deleted ", ""} {
			if i == 0 && event != "" {
				continue
			}
			t := start.Add(time.Duration(i) * 30 * time.Minute)
			if form == "-ts" {
				fmt.Fprintf(&b, "[%s.000250] ", t.Format("2006-01-02T15:04:05"))
			} else if form == "-t" {
				fmt.Fprintf(&b, "Timestamp: %s 250 usec\n", t.Format(time.ANSIC))
			}
			key := i
			if event != "" {
				key--
			}
			fmt.Fprintf(&b, "%ssrc 192.0.2.1 dst 192.0.2.2\n\tproto esp spi 0x00001001 reqid 1 mode tunnel\n\treplay-window 32 flag af-unspec\n", event)
			fmt.Fprintf(&b, "\taead rfc4106(gcm(aes)) 0x%02d0102030405060708090a0b0c0d0e0fa1a2a3a4 128\n", key)
		}
	}
	return b.String()
}

// sealedBy is a frame of the SA under its n-th key.
func sealedBy(t *testing.T, n int) []byte {
	t.Helper()
	su, err := sa.ParseSuite(sa.ESP, "aes128gcm16")
	if err != nil {
		t.Fatal(err)
	}
	key, err := sa.ParseKey(fmt.Sprintf("0x%02d0102030405060708090a0b0c0d0e0fa1a2a3a4", n))
	if err != nil {
		t.Fatal(err)
	}
	s, err := outbound.NewSealer(forge.Zeros{}, &sa.SA{Name: "x", SPI: 0x1001, Protocol: sa.ESP, Mode: sa.Tunnel, Suite: su, EncryptionKey: key,
		Src: netip.MustParseAddr("192.0.2.1"), Dst: netip.MustParseAddr("192.0.2.2")})
	if err != nil {
		t.Fatal(err)
	}
	at := netip.MustParseAddrPort
	packet, err := s.Seal(nil, forge.UDP(nil, at("10.0.0.1:1"), at("10.0.0.2:2"), []byte("x")))
	if err != nil {
		t.Fatal(err)
	}
	return forge.AppendFrame(nil, packet)
}

// Of several generations under one SPI a frame is judged by that of its time; where the text has no times, by the last one.
func TestOfflineGenerations(t *testing.T) {
	start := time.Date(2026, 11, 5, 9, 0, 0, 0, time.Local)
	type frame struct {
		key   int
		after time.Duration
		name  string // of the SA that opens it; empty: it fails
	}
	times := []frame{
		{0, -time.Hour, "esp-00001001.1"}, {0, time.Minute, "esp-00001001.1"}, {1, 30*time.Minute + 249*time.Microsecond, ""},
		{1, 30*time.Minute + 250*time.Microsecond, "esp-00001001.2"}, {0, 31 * time.Minute, ""},
		{2, time.Hour + time.Second, "esp-00001001"}, {1, time.Hour + time.Second, ""}, {2, 1e6 * time.Hour, "esp-00001001"},
	}
	for form, frames := range map[string][]frame{"-t": times, "-ts": times, "": {{2, 0, "esp-00001001"}, {0, 0, ""}}} {
		c, err := configs.ParseKeys("monitor", []byte(monitored(form)))
		if err != nil {
			t.Fatal(err)
		}
		if said := fmt.Sprint(c.Warnings); strings.Contains(said, "other keys from here on") != (form == "") || !strings.Contains(said, "has ended") {
			t.Errorf("%q: %s", form, said)
		}
		o, err := appliance.NewOffline(c)
		if err != nil {
			t.Fatal(err)
		}
		for i, f := range frames {
			if _, err := o.Enter(start.Add(f.after)); err != nil {
				t.Fatal(err)
			}
			_, trailer, err := status.Split(o.Process(sealedBy(t, f.key), start.Add(f.after)))
			if err != nil {
				t.Fatal(err)
			}
			if good := trailer.Word.Verified(1); good != (f.name != "") || good && o.SAs()[0].Name != f.name {
				t.Errorf("%q: frame %d: good %v by %s, expected %q", form, i, good, o.SAs()[0].Name, f.name)
			}
		}
	}
}
