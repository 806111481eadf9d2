package files_test

import (
	"strings"
	"testing"

	"tapsec/internal/files"
)

// endless is a file like /dev/zero.
type endless struct{}

func (endless) Read(b []byte) (int, error) { return len(b), nil }

// A file without an end is no text, and fills no memory.
func TestReadEndless(t *testing.T) {
	text, err := files.Read("-", endless{})
	if err == nil || !strings.HasPrefix(err.Error(), "standard input: expected at most 256 MiB of text") {
		t.Errorf("%d bytes, %v", len(text), err)
	}
}

// What a name holds moves no cursor.
func TestName(t *testing.T) {
	for path, want := range map[string]string{"-": "standard input", "a b.pcap": "a b.pcap", "\x1b[2J\n.pcap": " [2J .pcap"} {
		if got := files.Name(path); got != want {
			t.Errorf("%q is %q, expected %q", path, got, want)
		}
	}
}
