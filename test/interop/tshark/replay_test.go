package tshark

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"testing"
	"time"

	"tapsec/capture"
	"tapsec/test/interop"
	"tapsec/test/program"
)

// verdict is the part of what replay --json says that is looked at.
type verdict struct {
	Reason       string
	Judged       bool
	CryptoDone   bool   `json:"crypto_done"`
	CryptoStatus string `json:"crypto_status"`
	Records      []record

	delivered []byte
}

type record struct {
	Protocol, SPI, Result, Reason string
	Seq                           uint64
	PayloadOffset                 int   `json:"payload_offset"`
	PayloadLength                 int   `json:"payload_length"`
	PadLength                     int   `json:"pad_length"`
	NextHeader                    uint8 `json:"next_header"`
}

func (v *verdict) good() bool { return v.CryptoDone && v.CryptoStatus == "CRYPTO_SUCCESS" }

// esp is the records of ESP.
func (v *verdict) esp() (all []record) {
	for _, r := range v.Records {
		if r.Protocol == "esp" {
			all = append(all, r)
		}
	}
	return all
}

// payload is what ESP i carries, up to where the next ESP in it was opened.
func (v *verdict) payload(i int) []byte {
	all := v.esp()
	r := all[i]
	end := r.PayloadOffset + r.PayloadLength
	if i+1 < len(all) {
		end = min(end, all[i+1].PayloadOffset)
	}
	return v.delivered[r.PayloadOffset:end]
}

// replay runs the program over a capture.
func replay(t *testing.T, keys, file string) (verdicts []verdict) {
	t.Helper()
	out := filepath.Join(t.TempDir(), "out.pcapng")
	cmd := program.Command("replay", "--json", "--annotate", "none", "-k", keys, "-o", out, file)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	said, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %v\n%s", cmd.Args, err, &stderr)
	}
	delivered := interop.Frames(t, out)
	for d := json.NewDecoder(bytes.NewReader(said)); ; {
		var v verdict
		if err := d.Decode(&v); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		if len(verdicts) < len(delivered) {
			v.delivered = delivered[len(verdicts)]
		}
		verdicts = append(verdicts, v)
	}
	if len(verdicts) != len(delivered) {
		t.Fatalf("%d verdicts on %d frames", len(verdicts), len(delivered))
	}
	return verdicts
}

// table has the program write keys as a table esp_sa into a new folder, which is
// returned.
func table(t *testing.T, keys string) (folder string) {
	t.Helper()
	folder = t.TempDir()
	cmd := program.Command("keys", "--to", "esp_sa", "-o", filepath.Join(folder, "esp_sa"), keys)
	if said, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %v\n%s", cmd.Args, err, said)
	}
	path := filepath.Join(folder, "esp_sa")
	text, err := os.ReadFile(path)
	if err == nil {
		err = os.WriteFile(path, only40.ReplaceAll(text, nil), 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	return folder
}

// only40 is what tshark 4.0 does not take of a table: a cipher, for which it loads
// none, and two more columns.
var only40 = regexp.MustCompile(`(?m)^.*ChaCha20.*\n|,"(?:32|64)-bit","[0-9a-fA-Fx]*"$`)

// write makes a capture.
func write(t *testing.T, frames [][]byte) (file string) {
	t.Helper()
	file = filepath.Join(t.TempDir(), "frames.pcapng")
	f, err := os.Create(file)
	if err != nil {
		t.Fatal(err)
	}
	w, err := capture.NewWriter(f)
	if err == nil {
		_, err = w.Interface("wire0", "")
	}
	for _, frame := range frames {
		err = errors.Join(err, w.Frame(0, time.Time{}, frame, ""))
	}
	if err := errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
	return file
}
