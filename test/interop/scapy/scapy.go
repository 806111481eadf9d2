// Package scapy has scapy 2.5.0 judge tapsec: frames.py seals and damages frames
// for a running NIC, and opens what tapsec's sender sealed. vectors.py makes the
// packets of scapy's that package conformance carries.
package scapy

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"testing"

	"tapsec/internal/lab/conformance"
	"tapsec/internal/lab/rig"
	"tapsec/status"
	"tapsec/test/program"
)

// python is Debian's, which has Debian's scapy.
const python = "/usr/bin/python3"

// need ends a test where scapy is missing, or another version of it.
func need(t *testing.T) {
	t.Helper()
	if err := exec.Command(python, "-c", "from scapy import VERSION; assert VERSION == '2.5.0'").Run(); err != nil {
		rig.Missing(t, "scapy 2.5.0 is missing: apt-get install python3-scapy")
	}
}

// Frame is a frame that scapy sealed, and all that must become of it.
type Frame struct {
	conformance.Case
	Group string // of suites and layouts: a line of the matrix
	Said  string // how scapy differs there, if it does
}

// Good reports whether nothing about the frame is wrong.
func (f *Frame) Good() bool { return f.Reason == status.Verified }

// Packet is one for the other direction: it goes to an address to which
// only the SAs of one stack lead.
type Packet struct {
	Group, Said, Stack string
	Bytes              []byte
}

// Make has frames.py, which lies in a folder, make its frames: config is a file
// with their SAs, and frames are in the order in which they are to be sent.
func Make(t *testing.T, folder string) (config string, frames []Frame, packets []Packet) {
	t.Helper()
	need(t)
	program.Watch(t, folder)
	dir := t.TempDir()
	cmd := exec.Command(python, filepath.Join(folder, "frames.py"), "make", dir)
	cmd.Env = append(os.Environ(), "PYTHONDONTWRITEBYTECODE=1")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	var err error
	lines(t, filepath.Join(dir, "frames.jsonl"), func(line []byte) {
		var f Frame
		if f, err = readFrame(line); err != nil {
			t.Fatal(err)
		}
		frames = append(frames, f)
	})
	lines(t, filepath.Join(dir, "plain.jsonl"), func(line []byte) {
		var p struct{ Group, Said, Stack, Packet string }
		if err := json.Unmarshal(line, &p); err != nil {
			t.Fatal(err)
		}
		b, err := hex.DecodeString(p.Packet)
		if err != nil {
			t.Fatal(err)
		}
		packets = append(packets, Packet{p.Group, p.Said, p.Stack, b})
	})
	return filepath.Join(dir, "sas.yaml"), frames, packets
}

func lines(t *testing.T, file string, each func(line []byte)) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	const longest = 1 << 20
	s := bufio.NewScanner(bytes.NewReader(text))
	for s.Buffer(nil, longest); s.Scan(); {
		each(s.Bytes())
	}
	if s.Err() != nil {
		t.Fatal(s.Err())
	}
}

// readFrame reads a line of frames.jsonl.
func readFrame(line []byte) (f Frame, err error) {
	var text struct {
		Group, Said, Name, Frame, Word, Reason string
		Records                                []string
		InPlace                                string `json:"in_place"`
		Decap                                  string
	}
	if err := json.Unmarshal(line, &text); err != nil {
		return f, err
	}
	f.Group, f.Said, f.Title = text.Group, text.Said, text.Name
	f.Records = text.Records // empty is not nil: there must be none
	for _, b := range []struct {
		to   *[]byte
		from string
	}{{&f.Frame, text.Frame}, {&f.InPlace, text.InPlace}, {&f.Decap, text.Decap}} {
		if *b.to, err = hex.DecodeString(b.from); err != nil {
			return f, fmt.Errorf("%s: %w", f.Title, err)
		}
	}
	if len(f.Decap) == 0 {
		f.Decap = nil // says nothing
	}
	word, err := strconv.ParseUint(text.Word, 16, 32)
	f.Word = status.Word(word)
	i := slices.IndexFunc(status.Reasons(), func(r status.Reason) bool { return r.String() == text.Reason })
	if err != nil || i < 0 {
		return f, fmt.Errorf("%s: word %s, reason %s", f.Title, text.Word, text.Reason)
	}
	f.Reason = status.Reasons()[i]
	return f, nil
}
