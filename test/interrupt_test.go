package test

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"tapsec/test/program"
)

// SIGINT ends replay with the sum of what it has read, at once also where it waits for more.
// Where it reads a pipe, whose writer gets the signal as well, the first one leaves it the
// writer's last frames.
func TestReplayInterrupted(t *testing.T) {
	const header, frames = 24, 2
	file, err := os.ReadFile("../internal/cli/testdata/plain.pcap")
	if err != nil {
		t.Fatal(err)
	}
	first := header
	for range frames {
		first += 16 + int(file[first+8]) + int(file[first+9])<<8
	}
	from, to, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer to.Close()
	cmd := program.Command("replay", "-c", "../internal/cli/testdata/plain.yaml", "-")
	said, err := os.Create(filepath.Join(t.TempDir(), "said"))
	if err != nil {
		t.Fatal(err)
	}
	defer said.Close()
	cmd.Stdin, cmd.Stdout, cmd.Stderr = from, said, said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill() }) // it has mostly ended
	from.Close()
	text := func() string {
		b, err := os.ReadFile(said.Name())
		if err != nil {
			t.Error(err)
		}
		return string(b)
	}
	write := func(b []byte, last string) {
		t.Helper()
		if _, err := to.Write(b); err != nil {
			t.Fatal(err)
		}
		program.Await(t, last, func() bool { return strings.Contains(text(), last) })
	}
	write(file[:first], "left alone     2 ")
	if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	write(file[first:], "17 03:04:05")
	exited := make(chan error, 1)
	go func() { exited <- cmd.Wait() }()
	for ended := false; !ended; { // two signals at once may come as one
		if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
			t.Fatal(err)
		}
		select {
		case <-exited: // the exit code says how
			ended = true
		case <-time.After(program.Patience / 10):
		}
	}
	if code := cmd.ProcessState.ExitCode(); code != 1 || !strings.HasSuffix(text(), "17 frames: 5 good, 4 failed, 8 left alone\ntapsec: interrupted\n") {
		t.Errorf("exit code %d\n%s", code, text())
	}
}
