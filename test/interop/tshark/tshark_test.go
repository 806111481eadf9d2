package tshark

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"tapsec/test/interop"
	"tapsec/test/interop/scapy"
)

// TestTshark compares frame by frame, and writes the lines of the matrix.
func TestTshark(t *testing.T) {
	interop.Require(t, "tshark")
	m := newMatrix()
	t.Run("scapy", func(t *testing.T) { scapyFrames(t, m) })
	t.Run("linux", func(t *testing.T) { linuxFrames(t, m) })
	t.Run("tapsec", func(t *testing.T) { ownFrames(t, m) })
	t.Run("samples", func(t *testing.T) { samples(t, m) })
	t.Run("containers", func(t *testing.T) { containers(t, m) })
	interop.Record(t, "tshark", m.finished(version(t)))
}

// scapyFrames are those that the NIC is judged by: good ones and each kind of damage.
func scapyFrames(t *testing.T, m *matrix) {
	config, frames, _ := scapy.Make(t, "../scapy")
	var wire [][]byte
	for _, f := range frames {
		wire = append(wire, f.Frame)
	}
	m.judge(t, config, write(t, wire), interop.BothOpen, func(i int) (what, title string) { return "scapy: " + frames[i].Group, frames[i].Title })
}

// linuxFrames are recordings of a kernel's ESP.
func linuxFrames(t *testing.T, m *matrix) {
	states, err := filepath.Glob("../linux/captures/*.xfrm")
	if err != nil || len(states) == 0 {
		t.Fatalf("no recordings: %v", err)
	}
	for _, keys := range states {
		name := strings.TrimSuffix(filepath.Base(keys), ".xfrm")
		file := strings.TrimSuffix(keys, ".xfrm") + ".pcap"
		if name == "ah" || name == "esn.before" { // no ESP; a second time the same
			continue
		}
		label := func(int) (what, title string) { return "Linux 6.1: " + name, "" }
		verdicts := m.judge(t, keys, file, interop.BothOpen, label)
		m.judge(t, keys, write(t, damaged(interop.Frames(t, file), verdicts)), interop.BothOpen, label)
	}
}

// places are where a bit is flipped: in the ciphertext, and in the ICV behind pad,
// pad length and next header.
var places = []func(r record) int{
	func(r record) int { return r.PayloadOffset },
	func(r record) int { return r.PayloadOffset + r.PayloadLength + r.PadLength + 2 },
}

// damaged are the frames that tapsec opened, with a bit flipped in their outermost
// ESP, once for each place.
func damaged(frames [][]byte, verdicts []verdict) (all [][]byte) {
	for i, frame := range frames {
		esp := verdicts[i].esp()
		if len(esp) == 0 || esp[0].Result != "icv-valid" {
			continue
		}
		for _, place := range places {
			f := bytes.Clone(frame)
			f[place(esp[0])] ^= 1
			all = append(all, f)
		}
	}
	return all
}

// judge has both open a capture, and counts its frames in the lines that they are of.
func (m *matrix) judge(t *testing.T, keys, file string, way interop.Way, label func(i int) (what, title string)) []verdict {
	t.Helper()
	text, err := os.ReadFile(keys)
	if err != nil {
		t.Fatal(err)
	}
	can := abilities(t, keys, text)
	verdicts, seen := replay(t, keys, file), dissect(t, table(t, keys), file)
	if len(verdicts) != len(seen) {
		t.Fatalf("%d verdicts, tshark saw %d frames", len(verdicts), len(seen))
	}
	for i := range verdicts {
		v, l := &verdicts[i], &seen[i]
		what, title := label(i)
		if beyond(v, l) {
			m.beyond[v.Reason]++
		}
		a, known := least(can, v.esp())
		if why := unasked(v, l, known); why != "" {
			m.unasked[why]++
			continue
		}
		err := compare(v, l, can)
		if err != nil {
			t.Errorf("%s: frame %d, %s: %s: %v", what, i+1, title, v.Reason, err)
		}
		m.add(a.line(what, way), v.good(), err)
	}
	return verdicts
}

// unasked says why nothing of a frame can be compared; empty where something can.
func unasked(v *verdict, l *layers, known bool) string {
	switch {
	case len(v.esp()) == 0:
		return "no ESP that an SA matches"
	case !known:
		return "ESP for the SA of another protocol"
	case l.malformed && len(l.good) == 0:
		return "tshark gives up in the content"
	}
	return ""
}

// version is what tshark calls its own.
func version(t *testing.T) string {
	t.Helper()
	said, err := exec.Command("tshark", "--version").Output()
	found := regexp.MustCompile(`\d+\.\d+\.\d+`).Find(said)
	if err != nil || found == nil {
		t.Fatalf("tshark --version: %v\n%s", err, said)
	}
	return string(found)
}
