package scapy

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"strings"
	"testing"

	"tapsec/internal/lab/forge"
	"tapsec/internal/lab/rig"
	"tapsec/internal/netns"
	"tapsec/test/interop"
	"tapsec/test/program"
)

// Both directions, frame by frame, and the lines of the matrix about them.
func TestScapy(t *testing.T) {
	interop.Require(t, "ip")
	rig.Require(t)
	config, frames, packets := Make(t, ".")
	m := newMatrix()
	t.Run("seals", func(t *testing.T) { scapySeals(t, m, config, frames) })
	t.Run("opens", func(t *testing.T) { scapyOpens(t, m, config, packets) })
	interop.Record(t, "scapy", m.finished())
}

// scapySeals has a running NIC open frames: each is answered with its word, reason
// and records and delivered byte for byte, in place and decapsulated.
func scapySeals(t *testing.T, m *matrix, config string, frames []Frame) {
	for _, form := range []string{"inplace", "decap"} {
		nic := program.Start(t, "run", "-c", config, "--form", form)
		wire, host := listen(t, "wire0"), listen(t, "host0")
		for i := range frames {
			f := &frames[i]
			err := f.Check(exchange(wire, host, f.Frame))
			if err != nil {
				t.Errorf("%s, %s: %s: %v", form, f.Group, f.Title, err)
			}
			if form == "inplace" {
				m.add(interop.PeerSeals, f.Group, f.Said, f.Good(), err)
			}
		}
		nic.Stop()
	}
}

// scapyOpens has `send` seal packets for scapy, which is to get them back byte for
// byte where it does not differ, and is to refuse them with a bit flipped.
func scapyOpens(t *testing.T, m *matrix, config string, packets []Packet) {
	if said, err := exec.Command("ip", "link", "add", "near0", "type", "veth", "peer", "far0").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, said)
	}
	if err := errors.Join(netns.Up("near0"), netns.Up("far0")); err != nil {
		t.Fatal(err)
	}
	sender := program.Start(t, "send", "-c", config, "--stack", "stack0", "--out", "near0")
	if err := netns.Ready("near0", "stack0"); err != nil {
		t.Fatal(err)
	}
	stack, far := listen(t, "stack0"), listen(t, "far0")
	var lines bytes.Buffer
	ask := json.NewEncoder(&lines)
	for _, p := range packets {
		const ethernet = 14
		sealed := exchange(stack, far, forge.AppendFrame(nil, p.Bytes))[ethernet:]
		for range 2 {
			if err := ask.Encode(map[string]string{"stack": p.Stack, "packet": hex.EncodeToString(p.Bytes), "sealed": hex.EncodeToString(sealed)}); err != nil {
				t.Fatal(err)
			}
			sealed = bytes.Clone(sealed)
			sealed[len(sealed)-1] ^= 1
		}
	}
	sender.Stop()
	said := opens(t, &lines)
	if len(said) != 2*len(packets) {
		t.Fatalf("%d answers on %d packets", len(said), 2*len(packets))
	}
	for i, p := range packets {
		var err error
		if opened := said[2*i] == "ok"; opened != (p.Said == "") || said[2*i+1] == "ok" {
			err = errors.New(p.Stack + ": " + said[2*i] + "; with a bit flipped: " + said[2*i+1])
			t.Error(err)
		}
		m.add(interop.TapsecSeals, p.Group, p.Said, true, err)
		m.add(interop.TapsecSeals, p.Group, p.Said, false, nil)
	}
}

// opens asks scapy, and gives its answers.
func opens(t *testing.T, lines *bytes.Buffer) []string {
	t.Helper()
	cmd := exec.Command(python, "frames.py", "open")
	cmd.Env = append(os.Environ(), "PYTHONDONTWRITEBYTECODE=1")
	cmd.Stdin, cmd.Stderr = lines, os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.Split(strings.TrimSpace(string(out)), "\n")
}
