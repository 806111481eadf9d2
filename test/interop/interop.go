// Package interop has other implementations of IPsec judge tapsec. Each has a
// folder: its test lets the peer seal and judge, and writes down with Record what
// the peer said. `make interop` runs them all and makes of the lines the matrix in
// docs/interop.md.
package interop

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"tapsec/capture"
	"tapsec/internal/lab/rig"
)

// Directory names, in the environment, the folder that the lines go to. Where it
// is not set the tests of the peers skip: they take minutes.
const Directory = "TAPSEC_INTEROP"

// Agrees is what a line says where peer and tapsec say the same of each frame.
const Agrees = "agrees"

// Line is one line of the matrix. It says the same after each run: what varies
// from run to run, such as the packets of a live transfer, is no part of it.
type Line struct {
	Peer    string `json:"peer"`             // strongSwan
	Version string `json:"version"`          // 5.9.8
	What    string `json:"what"`             // ESP aes128gcm16, tunnel, IPv4
	Way     Way    `json:"way"`              // who does what
	Frames  string `json:"frames,omitempty"` // 12 good, 12 damaged
	Said    string `json:"said"`             // Agrees, or in a few words how the peer differs
}

// Way says who does what to the frames of a line.
type Way string

// The ways.
const (
	PeerSeals   Way = "peer seals, tapsec opens"
	TapsecSeals Way = "tapsec seals, peer opens"
	BothOpen    Way = "both open" // frames of a third party, or of either
)

// Require ends a test that was not asked for, or that lacks one of the peer's
// programs; rig.Missing says how.
func Require(t *testing.T, programs ...string) {
	t.Helper()
	if os.Getenv(Directory) == "" {
		t.Skip("make interop runs this")
	}
	for _, p := range programs {
		if _, err := exec.LookPath(p); err != nil {
			rig.Missing(t, p+" is not installed; make peers installs it")
		}
	}
}

// Record writes lines of the matrix down.
func Record(t *testing.T, peer string, lines []Line) {
	t.Helper()
	f, err := os.Create(filepath.Join(os.Getenv(Directory), peer+".jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	e := json.NewEncoder(f)
	for _, l := range lines {
		if err := e.Encode(l); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}

// Frames reads a capture.
func Frames(t *testing.T, file string) (all [][]byte) {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	r, err := capture.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	for {
		frame, _, err := r.Next()
		switch {
		case errors.Is(err, io.EOF):
			return all
		case err != nil:
			t.Fatal(err)
		}
		all = append(all, bytes.Clone(frame))
	}
}
