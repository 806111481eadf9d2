package cli

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A reader of -o that leaves ends replay with a sentence, and a live capture's
// frames are written before the next one is waited for.
func TestReplayThroughPipes(t *testing.T) {
	dir := t.TempDir()
	in, out := filepath.Join(dir, "in"), filepath.Join(dir, "out")
	for _, path := range []string{in, out} {
		if err := unix.Mkfifo(path, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	plain := file(t, "testdata/plain.pcap")
	done := make(chan error, 1)
	go func() {
		_, _, err := command("", "replay", "-c", "testdata/plain.yaml", in, "-o", out)
		done <- err
	}()
	writer, err := os.OpenFile(in, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer writer.Close()
	if _, err := writer.Write(plain); err != nil {
		t.Fatal(err)
	}
	reader, err := os.Open(out)
	if err != nil {
		t.Fatal(err)
	}
	var got bytes.Buffer
	reader.SetReadDeadline(time.Now().Add(patience))
	for frames := 0; frames < 17; { // all of them, though the capture has not ended
		if _, err := io.CopyN(&got, reader, 1); err != nil {
			t.Fatalf("%d frames, %v", frames, err)
		}
		if f, _ := whole(got.Bytes()); f > frames {
			frames = f
		}
	}
	reader.Close()
	for range 200 { // more than a pipe and two buffers hold
		if _, err := writer.Write(plain[24:]); err != nil {
			break // nobody reads any more
		}
	}
	select {
	case err = <-done:
	case <-time.After(patience):
		t.Fatal("replay goes on though nobody reads what it writes")
	}
	if err == nil || !strings.Contains(err.Error(), "its reader left after") {
		t.Errorf("ended with %v", err)
	}
}

// whole counts the frames in a pcapng file that may end in the middle of a block.
func whole(b []byte) (frames int, rest int) {
	for len(b) >= 12 {
		n := int(b[4]) | int(b[5])<<8
		if n < 12 || n > len(b) {
			break
		}
		if b[0] == 6 {
			frames++
		}
		b = b[n:]
	}
	return frames, len(b)
}
