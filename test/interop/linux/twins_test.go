package linux

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"tapsec/internal/account"
	"tapsec/internal/lab/rig"
	"tapsec/internal/netns"
	"tapsec/test/interop"
	"tapsec/wire"
)

// TestTwinsRecorded looks at what a kernel captured of its own, as recorded.
func TestTwinsRecorded(t *testing.T) { checkTwins(t, filepath.Join("captures", "twins")) }

// TestTwins does so with a kernel of today: what docs/diagnosis.md says of which
// frames are seen twice is what Linux does.
func TestTwins(t *testing.T) {
	interop.Require(t, "linux.uml", "ip", "tcpdump")
	rig.Require(t)
	out := t.TempDir()
	if err := errors.Join(netns.AddTAP("twin0", false), netns.Up("twin0")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := netns.Delete("twin0"); err != nil {
			t.Error(err)
		}
	})
	uml := boot(t, "twins.py", out, wired("twin0"))
	uml.Await("recorded", 1)
	uml.Join()
	checkTwins(t, out)
}

// checkTwins compares what was captured with docs/diagnosis.md, and has `replay`
// name the frames whose packets are missing.
func checkTwins(t *testing.T, dir string) {
	t.Helper()
	seen := sequences(t, filepath.Join(dir, "twins.pcap"))
	missing := map[string]bool{}
	for n, line := range strings.Split(strings.TrimSpace(read(t, dir, "twins.flows")), "\n") {
		f := append(strings.Fields(line), "") // number, family, protocol, mode, what is wrong
		way := func(from, to int) string { return fmt.Sprintf("10.0.%d.%d > 10.0.%d.%d", n, from, n, to) }
		if f[1] == "6" {
			way = func(from, to int) string { return fmt.Sprintf("fd00:%d::%d > fd00:%d::%d", n, from, n, to) }
		}
		in, out, tunnel := "+ +", "+ +", f[3] == "tunnel"
		if tunnel && f[4] != "key" {
			in = "+ - + -"
		}
		switch f[4] {
		case "replay":
			in += " + +"
		case "selector", "policy":
			out = "" // nobody asked for it
		}
		if got := strings.Join(seen[way(1, 2)], " "); got != in {
			t.Errorf("%s: in came %q, want %q", line, got, in)
		}
		if got := strings.Join(seen[way(2, 1)], " "); got != out {
			t.Errorf("%s: out went %q, want %q", line, got, out)
		}
		if tunnel && (f[4] == "key" || f[4] == "replay") {
			missing[fmt.Sprintf("0x%08x", 0x1000+2*n)] = true
		}
	}
	named(t, dir, missing)
}

// sequences are the frames of a capture by their addresses: + with IPsec, - a
// datagram to port 9.
func sequences(t *testing.T, path string) map[string][]string {
	t.Helper()
	all := map[string][]string{}
	for _, frame := range interop.Frames(t, path) {
		p, ok := account.OwnPacket(frame)
		if !ok || p.Proto == wire.ProtoICMPv6 || p.Proto == wire.ProtoICMP {
			continue
		}
		kind := "+"
		if _, port, _, _ := wire.UDP(frame[p.Header:]); p.Proto == wire.ProtoUDP && port == 9 {
			kind = "-"
		}
		between := fmt.Sprintf("%s > %s", p.Src, p.Dst)
		all[between] = append(all[between], kind)
	}
	return all
}

// named compares the SAs of which `replay` says that packets are missing.
func named(t *testing.T, dir string, want map[string]bool) {
	t.Helper()
	for _, row := range rows(t, filepath.Join(dir, "twins.xfrm"), filepath.Join(dir, "twins.pcap")) {
		said := false
		for _, f := range row.Diagnosis {
			said = said || f.Cause == "not-shown"
		}
		if said != want[row.SPI] {
			t.Errorf("%s: not-shown is said: %v, want %v", row.SPI, said, want[row.SPI])
		}
		delete(want, row.SPI)
	}
	if len(want) > 0 {
		t.Errorf("no rows for %v", want)
	}
}
