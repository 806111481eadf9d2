package tshark

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// layers are what tshark says of the ESP of a frame, outermost first. Of an ESP
// that is not in its table it says no more than the first two.
type layers struct {
	spi, seq  []string
	good, bad []bool // of each whose ICV it found, checked or not
	pad, next []string
	payload   []string // in hexadecimal digits
	malformed bool     // it gave up in what lies inside
}

// fields are asked for in this order.
var fields = []string{"frame.number", "esp.spi", "esp.sequence", "esp.icv_good", "esp.icv_bad", "esp.pad_len", "esp.protocol", "esp.contained_data", "_ws.malformed"}

// needed are the protocols that tshark is left with. What a wrong key makes of a
// payload would else be dissected as anything, until some dissector gives up on the
// whole frame.
var needed = []string{"frame", "eth", "ethertype", "vlan", "ieee8021ad", "ip", "ipv6", "udp", "udpencap", "esp", "ah", "data", "raw", "sll", "null"}

func isNeeded(protocol string) bool {
	return slices.Contains(needed, protocol) || strings.HasPrefix(protocol, "ip.") || strings.HasPrefix(protocol, "ipv6.")
}

// others lists all other protocols, one a line.
var others = sync.OnceValues(func() (list []byte, err error) {
	out, err := exec.Command("tshark", "-G", "protocols").Output()
	for line := range strings.Lines(string(out)) {
		const short = 2 // the third column
		if c := strings.Split(strings.TrimSpace(line), "\t"); len(c) > short && !isNeeded(c[short]) {
			list = append(list, c[short]+"\n"...)
		}
	}
	return list, err
})

// dissect runs tshark over a capture with the settings of a folder.
func dissect(t *testing.T, folder, file string) (all []layers) {
	t.Helper()
	list, err := others()
	if err = errors.Join(err, os.WriteFile(filepath.Join(folder, "disabled_protos"), list, 0o600)); err != nil {
		t.Fatal(err)
	}
	args := []string{"-n", "-r", file, "-T", "fields", "-E", "separator=/t", "-E", "occurrence=a", "-E", "aggregator=,"}
	for _, preference := range []string{"esp.enable_encryption_decode:TRUE", "esp.enable_authentication_check:TRUE", "esp.do_esp_sequence_analysis:FALSE", "ip.defragment:FALSE"} {
		args = append(args, "-o", preference)
	}
	for _, f := range fields {
		args = append(args, "-e", f)
	}
	cmd := exec.Command("tshark", args...)
	cmd.Env = append(os.Environ(), "WIRESHARK_CONFIG_DIR="+folder)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if said := withoutRoot(stderr.String()); err != nil || said != "" {
		t.Fatalf("%v: %v\n%s", cmd.Args, err, said)
	}
	for line := range strings.Lines(string(out)) {
		all = append(all, readLayers(t, strings.TrimSuffix(line, "\n"), len(all)+1))
	}
	return all
}

// withoutRoot takes the warning off that tshark runs as root.
func withoutRoot(said string) (rest string) {
	for line := range strings.Lines(said) {
		if !strings.HasPrefix(line, "Running as user ") {
			rest += line
		}
	}
	return rest
}

func readLayers(t *testing.T, line string, number int) layers {
	t.Helper()
	columns := strings.Split(line, "\t")
	if len(columns) != len(fields) || columns[0] != strconv.Itoa(number) {
		t.Fatalf("frame %d: tshark said %q", number, line)
	}
	each := func(i int) []string {
		if columns[i] == "" {
			return nil
		}
		return strings.Split(columns[i], ",")
	}
	set := func(i int) (all []bool) {
		for _, v := range each(i) {
			all = append(all, v == "1")
		}
		return all
	}
	return layers{spi: each(1), seq: each(2), good: set(3), bad: set(4), pad: each(5), next: each(6), payload: each(7), malformed: columns[8] != ""}
}

// holds tells whether layer i is opened as a record says; payload is what it
// carries, or where that is not the whole, how it begins. Of a dummy (RFC 4303, 2.6)
// tshark shows neither pad nor next header.
func (l *layers) holds(i int, r record, payload []byte) bool {
	const dummy = 59
	said, want := "", hex.EncodeToString(payload)
	if i < len(l.payload) {
		said = l.payload[i]
	}
	if len(payload) < r.PayloadLength && len(said) > len(want) {
		said = said[:len(want)]
	}
	if said != want {
		return false
	}
	if r.NextHeader == dummy {
		return len(l.next) == i && len(l.pad) == i
	}
	return i < len(l.next) && i < len(l.pad) && l.next[i] == fmt.Sprintf("0x%02x", r.NextHeader) && l.pad[i] == strconv.Itoa(r.PadLength)
}
