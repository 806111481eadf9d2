package capture

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
)

// secretsOf reads a capture's secrets, and then all of its frames.
func secretsOf(t *testing.T, file []byte) (found []Secret, frames int) {
	t.Helper()
	r, err := NewReader(bytes.NewReader(file))
	if err != nil {
		t.Fatal(err)
	}
	if found, err = r.Secrets(); err != nil {
		t.Fatal(err)
	}
	for ; ; frames++ {
		if _, _, err := r.Next(); err == io.EOF {
			return found, frames
		} else if err != nil {
			t.Fatal(err)
		}
	}
}

// A Copy's own secrets stand in front of the frames, of a capture in either format
// and byte order, and are read there, with what else there was. Another Copy has only
// what is not ours.
func TestSecrets(t *testing.T) {
	long := bytes.Repeat([]byte("sas: []\n"), 40000) // beyond every buffer
	own := []Secret{{SecretSAs, long}, {SecretESP, []byte(OwnRows + `"IPv4","*"`)}}
	for name, file := range map[string][]byte{
		"little": rich(binary.LittleEndian), "big": rich(binary.BigEndian), "pcap": fixture(t, "ether.pcap"), "pcapng": fixture(t, "comment.pcapng"),
	} {
		before, frames := secretsOf(t, file)
		r, err := NewReader(bytes.NewReader(file))
		if err != nil {
			t.Fatal(err)
		}
		var out bytes.Buffer
		c := r.CopyTo(&out)
		c.WithSecrets(own...)
		for {
			frame, info, err := r.Next()
			if err == io.EOF {
				break
			}
			if err != nil || c.Frame(frame, info, "") != nil {
				t.Fatal(err, c.Close())
			}
		}
		got, n := secretsOf(t, out.Bytes())
		if want := slices.Concat(own, before); fmt.Sprint(got) != fmt.Sprint(want) || n != frames {
			t.Errorf("%s: %d secrets and %d frames of %d", name, len(got), n, frames)
		}
		again, _ := copied(t, out.Bytes())
		if got, n := secretsOf(t, again); fmt.Sprint(got) != fmt.Sprint(before) || n != frames {
			t.Errorf("%s: a copy that nobody asked for keys has %d secrets, %d frames", name, len(got), n)
		}
	}
}

// Secrets behind the first frame are not waited for; a block that lies is an error.
func TestSecretsAhead(t *testing.T) {
	order := binary.LittleEndian
	section := ngHeader(order)
	frame := ngBlock(order, blockSimple, []uint32{4}, 1, 2, 3, 4)
	secret := ngBlock(order, blockSecrets, []uint32{SecretSAs, 4}, []byte("key\n")...)
	if got, n := secretsOf(t, slices.Concat(section, frame, secret)); len(got) != 0 || n != 1 {
		t.Errorf("%d secrets behind %d frames", len(got), n)
	}
	if got, n := secretsOf(t, slices.Concat(section, secret)); len(got) != 1 || string(got[0].Data) != "key\n" || n != 0 {
		t.Errorf("%v of %d frames", got, n)
	}
	for what, file := range map[string][]byte{
		"ends inside them": slices.Concat(section, ngBlock(order, blockSecrets, []uint32{SecretSAs, 5}, []byte("key\n")...)),
		"at most 4194304":  slices.Concat(section, ngBlock(order, blockSecrets, []uint32{SecretSAs, 5 << 20}, make([]byte, 5<<20)...)),
	} {
		r, err := NewReader(bytes.NewReader(file))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := r.Secrets(); err == nil || !strings.Contains(err.Error(), what) {
			t.Errorf("%v, expected %q", err, what)
		}
	}
}
