// Package vectors runs packet vectors of independent origin through the whole
// pipeline. The data stand in text files, each of which says who made it.
package vectors

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"tapsec/configs"
	"tapsec/pipeline"
	"tapsec/rig"
	"tapsec/sa"
	"tapsec/status"
)

// vector is one block of a file: "field: value" lines, fields may come again.
type vector map[string][]string

func (v vector) get(field string) string { return strings.Join(v[field], "\n") }

// read gives the blocks of a file; # begins a comment.
func read(t *testing.T, file string) (vectors []vector) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for block := range strings.SplitSeq(string(text), "\n\n") {
		v := vector{}
		for line := range strings.Lines(block) {
			if field, value, ok := strings.Cut(line, ":"); ok && line[0] != '#' {
				v[field] = append(v[field], strings.TrimSpace(value))
			}
		}
		if len(v) > 0 {
			vectors = append(vectors, v)
		}
	}
	return vectors
}

func glob(t *testing.T, pattern string) []string {
	t.Helper()
	files, err := filepath.Glob(pattern)
	if err != nil || len(files) == 0 {
		t.Fatalf("no vectors: %s: %v", pattern, err)
	}
	return files
}

// Every vector is answered with its word, reason and records, and delivered
// with its plaintext in place and nothing else changed (contract, bytes of a
// delivered frame).
func TestVectors(t *testing.T) {
	for _, file := range glob(t, "*.txt") {
		t.Run(strings.TrimSuffix(file, ".txt"), func(t *testing.T) {
			for _, v := range read(t, file) {
				t.Run(v.get("name"), func(t *testing.T) { v.run(t) })
			}
		})
	}
}

func (v vector) run(t *testing.T) {
	c, err := configs.Parse(t.Name(), []byte("allow_legacy: true\nsas:\n- "+strings.Join(v["sa"], "\n- ")))
	if err != nil {
		t.Fatal(err)
	}
	wire := unhex(t, v.get("frame"))
	body, tr := process(t, c.Bundles(), wire)
	if got := tr.Word.String(); got != v.get("word") {
		t.Errorf("word %s, want %s", got, v.get("word"))
	}
	if got := tr.Reason.String(); got != v.get("reason") {
		t.Errorf("reason %s, want %s", got, v.get("reason"))
	}
	if got := records(&tr); got != v.get("record") {
		t.Errorf("records\n%s\nwant\n%s", got, v.get("record"))
	}
	want := wire
	for _, plain := range v["plain"] {
		var at int
		var text []byte
		if _, err := fmt.Sscanf(plain, "%d %x", &at, &text); err != nil {
			t.Fatal(err)
		}
		if at+len(text) > len(want) {
			t.Fatalf("plaintext of %d bytes at %d of %d", len(text), at, len(want))
		}
		copy(want[at:], text)
	}
	if !bytes.Equal(body, want) {
		t.Errorf("delivered\n%x\nwant\n%x", body, want)
	}
}

// process leads one frame through a NIC of its own, and returns what was
// delivered, without padding.
func process(t *testing.T, bundles [][]*sa.SA, wire []byte) ([]byte, status.Trailer) {
	t.Helper()
	full, err := sa.ProfileByName("full")
	if err != nil {
		t.Fatal(err)
	}
	sad := pipeline.NewSAD(full, 1)
	if err := sad.Replace(bundles); err != nil {
		t.Fatal(err)
	}
	body, tr, err := status.Split(pipeline.New(sad, pipeline.Options{}).Process(bytes.Clone(wire)))
	if err != nil {
		t.Fatal(err)
	}
	return body[:tr.WireLen], tr
}

// records writes a trailer's records as the vector files do.
func records(tr *status.Trailer) string {
	var lines []string
	for _, r := range tr.Records[:tr.N] {
		line := fmt.Sprintf("%s %s 0x%08x %d %s", r.Portion, sa.Protocol(r.Protocol), r.SPI, r.Number, r.State)
		if r.State == status.ICVValid {
			line += fmt.Sprintf(" payload %d+%d pad %d next %d", r.Payload, r.PayloadLen, r.PadLen, r.NextHeader)
		}
		lines = append(lines, line)
	}
	return strings.Join(lines, "\n")
}

func unhex(t *testing.T, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// The generator, run again, writes the committed files.
func TestGenerator(t *testing.T) {
	const python = "/usr/bin/python3" // Debian's, which has Debian's scapy
	if err := exec.Command(python, "-c", "from scapy import VERSION; assert VERSION == '2.5.0'").Run(); err != nil {
		rig.Missing(t, "scapy 2.5.0 is missing: apt-get install python3-scapy")
	}
	// Opened here, so that a changed generator is not answered from the test cache.
	generator, err := os.Open("../scapy/vectors.py")
	if err != nil {
		t.Fatal(err)
	}
	defer generator.Close()
	dir := t.TempDir()
	cmd := exec.Command(python, "-", dir)
	cmd.Stdin = generator
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	made, committed := glob(t, filepath.Join(dir, "*.txt")), glob(t, "*.txt")
	if len(made) != len(committed) {
		t.Errorf("%d files were made, %d are committed", len(made), len(committed))
	}
	for _, file := range made {
		want, err := os.ReadFile(filepath.Base(file))
		if err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile(file); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s differs from the committed one; %v", filepath.Base(file), err)
		}
	}
}
