package fragment

import (
	"bytes"
	_ "embed"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"testing"

	"tapsec/internal/lab/rig"
)

// scapyPython is Debian's: another python3 on the path has no python3-scapy.
const scapyPython = "/usr/bin/python3"

//go:embed testdata/fragments.py
var fragmentsScript string

// What scapy fragmented comes out as scapy would have sent it whole.
func TestScapy(t *testing.T) {
	if err := exec.Command(scapyPython, "-c", "import scapy").Run(); err != nil {
		rig.Missing(t, fmt.Sprintf("scapy is missing: apt-get install python3-scapy (%v)", err))
	}
	cmd := exec.Command(scapyPython, "-c", fragmentsScript)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	cases := 0
	for lines := json.NewDecoder(bytes.NewReader(out)); ; cases++ {
		var c struct {
			Name, Whole string
			Fragments   []string
		}
		if err := lines.Decode(&c); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		t.Run(c.Name, func(t *testing.T) {
			b := newBench(t, Limits{})
			r := rand.New(rand.NewPCG(1, uint64(len(c.Fragments))))
			order := r.Perm(len(c.Fragments))
			for i, at := range order {
				want := Held
				if i == len(order)-1 {
					want = Whole
				}
				whole := b.frame(unhex(t, c.Fragments[at]), want)
				if want == Whole && !bytes.Equal(whole, unhex(t, c.Whole)) {
					t.Errorf("%d bytes\n got % x\nwant %s", len(whole), whole[:100], c.Whole[:200])
				}
			}
		})
	}
	t.Logf("scapy made %d datagrams", cases)
}

func unhex(t *testing.T, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
