package cli

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"

	"tapsec/internal/inspect"
	"tapsec/internal/lab/forge"
	"tapsec/internal/outbound"
	"tapsec/internal/wrap"
	"tapsec/keys"
)

// state is an SA as ip xfrm state shows it.
func state(src, dst string, spi int) string {
	return fmt.Sprintf("src %s dst %s\n\tproto esp spi 0x%08x reqid 1 mode tunnel\n\treplay-window 64\n"+
		"\taead rfc4106(gcm(aes)) 0x%032x10111213 128\n", src, dst, spi, spi)
}

// sent seals a packet for each number.
func sent(t *testing.T, text string, numbers ...uint64) (frames [][]byte) {
	t.Helper()
	read, err := keys.Read("test", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	out, err := outbound.NewSealer(forge.Zeros{}, read.All[0])
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range numbers {
		out.SetNumber(0, n)
		packet, err := out.Seal(nil, forge.UDP(nil, netip.MustParseAddrPort("10.1.0.1:4000"), netip.MustParseAddrPort("10.2.0.2:9"), []byte("hello")))
		if err != nil {
			t.Fatal(err)
		}
		frames = append(frames, forge.AppendFrame(nil, packet))
	}
	return frames
}

// replayed runs replay over frames.
func replayed(t *testing.T, text string, frames [][]byte, flags ...string) (stdout, stderr string) {
	t.Helper()
	dir := t.TempDir()
	sas, in := filepath.Join(dir, "sas"), filepath.Join(dir, "in.pcap")
	for path, b := range map[string][]byte{sas: []byte(text), in: pcap(frames)} {
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	stdout, stderr, err := command("", append([]string{"replay", "-k", sas, in}, flags...)...)
	if err != nil {
		t.Fatal(err)
	}
	return stdout, stderr
}

// A tunnel that loses, doubles, delays, is tampered with, and is rekeyed to an SPI
// that nobody has the key of.
func TestAccount(t *testing.T) {
	text := state("192.0.2.1", "192.0.2.2", 0x1001)
	frames := sent(t, text, 1, 2, 5, 4, 5, 200, 100, 201, 202)
	bad := sent(t, text, 203)[0]
	bad[len(bad)-1] ^= 1
	frames = append(append(frames, bad), sent(t, text, 204)...)
	frames = append(frames, sent(t, state("192.0.2.1", "192.0.2.2", 0x2002), 1, 2, 4)...)
	out, _ := replayed(t, text, frames, "--summary-only", "--json")
	var s inspect.Summary
	if err := json.Unmarshal([]byte(out), &s); err != nil {
		t.Fatal(err)
	}
	if s.Frames != 14 || s.Judged != 14 || s.Good != 10 || s.Failed != 1 || s.LeftAlone != 3 || s.Replayed != 2 || s.Late != 2 || len(s.SAs) != 2 {
		t.Fatalf("%+v", s)
	}
	r := s.SAs[0]
	// 3, 6 to 99 and 101 to 199 are nowhere; 203 came, and failed
	if r.SA != "esp-00001001" || r.Good != 10 || r.Failed["esp-icv"] != 1 || r.FirstSeq != "1" || r.LastSeq != "204" ||
		r.Lost != 1+94+99 || r.Duplicates != 1 || r.Late != 2 || r.MaxLate != 100 || r.SmallestWindow != 101 || r.Window != 64 ||
		r.Replayed != 2 || r.RekeyedTo != "0x00002002" || !r.Exact || !r.Authentic {
		t.Errorf("%+v", r)
	}
	if r := s.SAs[1]; r.SA != "" || r.SPI != "0x00002002" || r.LeftAlone != 3 || r.Lost != 1 || r.LastSeq != "4" || r.Authentic {
		t.Errorf("%+v", r)
	}
	if out, _ := replayed(t, text, frames, "--json", "--only", "late"); strings.Count(out, "\n") != 2 || strings.Count(out, `"late":true`) != 2 {
		t.Errorf("--only late: %s", out)
	}
	lines, _ := replayed(t, text, frames)
	for number, mark := range map[int]string{4: "seq 4, late", 5: "seq 5, replayed", 7: "seq 100, replayed, late"} {
		if !strings.Contains(strings.Join(strings.Fields(lines), " "), mark) {
			t.Errorf("frame %d is not marked %q:\n%s", number, mark, lines)
		}
	}
}

// Of many headers that nobody knows a few have lines, and all are counted.
func TestManyStrays(t *testing.T) {
	text := state("192.0.2.1", "192.0.2.2", 0x1001)
	var frames [][]byte
	for spi := range 30 {
		frames = append(frames, sent(t, state("192.0.2.1", "192.0.2.2", 0x2000+spi), 1)...)
	}
	out, _ := replayed(t, text, frames, "--summary-only")
	if n := strings.Count(out, "(no SA)"); n != 20 || !strings.Contains(out, "and 10 headers more that no SA matches\n") {
		t.Errorf("%d lines of headers:\n%s", n, out)
	}
}

// Lines fit a terminal whatever the addresses are, and all that is told of a frame
// stands in them.
func TestReplayWidth(t *testing.T) {
	long := "2001:db8:1111:2222:3333:4444:5555:666"
	text := state(long+"1", long+"2", 0x1001) + state(long+"1", long+"2", 0x1002)
	frames := sent(t, text, 1, 2, 300, 100)
	bad := sent(t, text, 4)[0]
	bad[len(bad)-1] ^= 1
	frames = append(append(frames, bad), sent(t, state(long+"1", long+"2", 0x2002), 1<<31)...)
	lines, sum := replayed(t, text, frames)
	for line := range strings.Lines(lines + sum) {
		if n := utf8.RuneCountInString(strings.TrimSuffix(line, "\n")); n > wrap.Width {
			t.Errorf("%d columns: %s", n, line)
		}
	}
	for _, want := range []string{
		long + "1 > " + long + "2", "esp esp-00001002 seq 100, replayed, late", "the ESP ICV is wrong, CRYPTO_TUNNEL_ESP_AUTH_FAILED",
		"esp SPI 0x00002002, no offloaded SA has this SPI",
	} {
		if !strings.Contains(strings.Join(strings.Fields(lines), " "), want) {
			t.Errorf("%q is missing in\n%s", want, lines)
		}
	}
	for _, want := range []string{"no frame of esp-00001001", "a window of 201 loses none", "1 replayed, refused by a window of 64"} {
		if !strings.Contains(strings.Join(strings.Fields(sum), " "), want) {
			t.Errorf("%q is missing in\n%s", want, sum)
		}
	}
}

// Names that have to be quoted are, and come back.
func TestReplayJSONQuotes(t *testing.T) {
	config := strings.Replace(string(file(t, "testdata/plain.yaml")), `name: "host"`, `name: "ho\"st <ü>"`, 1)
	path := filepath.Join(t.TempDir(), "plain.yaml")
	if err := os.WriteFile(path, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	out, _, err := command("", "replay", "--json", "-c", path, "testdata/plain.pcap", "--sa", `ho"st <ü>`)
	if err != nil {
		t.Fatal(err)
	}
	var frame struct{ Records []struct{ SA string } }
	line, _, _ := strings.Cut(out, "\n")
	if err := json.Unmarshal([]byte(line), &frame); err != nil || frame.Records[0].SA != `ho"st <ü>` {
		t.Errorf("%v: %s", err, line)
	}
}
