package test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"tapsec/capture"
	"tapsec/control"
	"tapsec/internal/lab/conformance"
	"tapsec/internal/lab/rig"
	"tapsec/status"
	"tapsec/test/program"
)

// watching is a command that reads the frames of a running NIC.
type watching struct {
	t              *testing.T
	cmd            *exec.Cmd
	stdout, stderr bytes.Buffer
	client         *control.Client
}

// readers is how many captures and traces are under way, and what they took and lost.
func readers(t *testing.T, c *control.Client) (n, taken, lost float64) {
	t.Helper()
	all, err := c.Counters("")
	if err != nil {
		t.Fatal(err)
	}
	for _, one := range all {
		switch one.Name {
		case "tapsec_capture_readers":
			n = one.Samples[0].Value
		case "tapsec_capture_frames":
			taken = one.Samples[0].Value
		case "tapsec_capture_lost_frames":
			lost = one.Samples[0].Value
		}
	}
	return n, taken, lost
}

// watch starts a command that reads frames, and returns when it gets them.
func watch(t *testing.T, socket string, args ...string) *watching {
	t.Helper()
	client, err := control.Dial(socket)
	if err != nil {
		t.Fatal(err)
	}
	w := &watching{t: t, client: client}
	before, _, _ := readers(t, client)
	w.cmd = program.Command(append(args, "--from", socket)...)
	w.cmd.Stdout, w.cmd.Stderr = &w.stdout, &w.stderr
	if err := w.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if w.cmd.ProcessState == nil {
			w.cmd.Process.Kill()
			w.cmd.Wait()
		}
	})
	program.Await(t, "reader", func() bool { n, _, _ := readers(t, client); return n > before })
	return w
}

// end waits for it to end with an exit code, and returns what it said.
func (w *watching) end(code int) string {
	w.t.Helper()
	done := make(chan error, 1)
	go func() { done <- w.cmd.Wait() }()
	select {
	case <-done:
	case <-time.After(patience):
		w.t.Fatalf("%s does not end", w.cmd)
	}
	if got := w.cmd.ProcessState.ExitCode(); got != code {
		w.t.Errorf("%s ended with %d, expected %d: %s", w.cmd, got, code, w.stderr.String())
	}
	return w.stderr.String()
}

// stop interrupts it.
func (w *watching) stop() string {
	w.t.Helper()
	if err := w.cmd.Process.Signal(os.Interrupt); err != nil {
		w.t.Fatal(err)
	}
	return w.end(0)
}

// packet is one of a capture, with what its block says beside its bytes.
type packet struct {
	side    int // its interface's number
	bytes   []byte
	length  int // on the wire
	comment string
	id      uint64
	verdict []byte
	lost    uint64
}

// packets reads a capture's packets, and how many its statistics say are lost.
func packets(t *testing.T, path string) (all []packet, lost uint64) {
	t.Helper()
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	le := binary.LittleEndian
	for blocks := capture.NewBlocks(file); ; {
		b, err := blocks.Next()
		if err == io.EOF {
			return all, lost
		}
		if err != nil {
			t.Fatalf("%s, packet %d: %v", path, len(all)+1, err)
		}
		if _, c, ok := b.Counts(); ok {
			lost = c.Lost
		}
		side, ok := b.Frame()
		if !ok {
			continue
		}
		n := int(le.Uint32(b[20:]))
		p := packet{side: side, bytes: bytes.Clone(b[28 : 28+n]), length: int(le.Uint32(b[24:]))}
		for o := b[28+(n+3)&^3 : len(b)-4]; len(o) >= 4; {
			code, n := le.Uint16(o), int(le.Uint16(o[2:]))
			switch v := o[4 : 4+n]; code {
			case 1:
				p.comment += string(v)
			case 4:
				p.lost = le.Uint64(v)
			case 5:
				p.id = le.Uint64(v)
			case 7:
				p.verdict = bytes.Clone(v)
			}
			o = o[4+(n+3)&^3:]
		}
		all = append(all, p)
	}
}

// pairs are the frames of a capture, each as it came and as it left.
func pairs(t *testing.T, path string) (came, left []packet, lost uint64) {
	t.Helper()
	all, lost := packets(t, path)
	for i, p := range all {
		if p.side != i%2 {
			t.Fatalf("%s: packet %d is of interface %d", path, i+1, p.side)
		}
		if p.side == 0 {
			came = append(came, p)
			continue
		}
		if before := came[len(came)-1]; p.id == 0 || p.id != before.id || p.comment != before.comment || !bytes.Equal(p.verdict, before.verdict) || p.lost != before.lost {
			t.Errorf("%s: packets %d and %d are no pair: %+v, %+v", path, i, i+1, before, p)
		}
		left = append(left, p)
	}
	if len(came) != len(left) {
		t.Fatalf("%s: %d frames came and %d left", path, len(came), len(left))
	}
	return came, left, lost
}

// TestCaptureRows captures every case of the contract's table live. What it says of each
// frame is what replay -o says of the frames that came (contract, The trailer).
func TestCaptureRows(t *testing.T) {
	rig.Require(t)
	rows := map[string]bool{}
	for _, l := range conformance.Labs() {
		if len(l.Delete) > 0 {
			continue // a configuration cannot say that an SA was there and is gone
		}
		t.Run(l.Name, func(t *testing.T) {
			var text bytes.Buffer
			if err := l.WriteConfig(&text); err != nil {
				t.Fatal(err)
			}
			captureLab(t, write(t, text.String()), &l)
			for _, c := range l.Cases {
				rows[c.Row] = true
			}
		})
	}
	if len(rows) < 35 {
		t.Errorf("%d rows were captured: %v", len(rows), rows)
	}
}

func captureLab(t *testing.T, config string, l *conformance.Lab) {
	dir := sockets(t)
	socket, file := filepath.Join(dir, "nic"), filepath.Join(dir, "live.pcapng")
	p := start(t, config, "--wire", "capw0", "--host", "caph0", "--control", socket)
	wire, host := listen(t, "capw0"), listen(t, "caph0")
	w := watch(t, socket, "capture", "-w", file)
	var sent [][]byte
	for i, c := range l.Cases {
		frame := bytes.Clone(c.Frame)
		copy(frame[6:], fmt.Sprintf("\x02cap%c%c", byte(i>>8), byte(i)))
		sent = append(sent, frame)
		wire.send(frame)
		for {
			got, err := host.Receive(patience)
			if err != nil {
				t.Fatal(err)
			}
			if bytes.Equal(got[6:12], frame[6:12]) {
				break
			}
		}
	}
	w.stop()
	p.stop()
	came, left, lost := pairs(t, file)
	if len(came) < len(sent) || lost != 0 {
		t.Fatalf("%d frames came, %d were lost, and %d were sent", len(came), lost, len(sent))
	}
	ref := replayed(t, config, came)
	for i, one := range left {
		same(t, &ref[i], &one)
	}
}

// replayed are the frames as replay -o writes them.
func replayed(t *testing.T, config string, came []packet) []packet {
	t.Helper()
	dir := t.TempDir()
	in, out := filepath.Join(dir, "in.pcapng"), filepath.Join(dir, "out.pcapng")
	file, err := os.Create(in)
	if err != nil {
		t.Fatal(err)
	}
	w, err := capture.NewWriter(file)
	if err == nil {
		_, err = w.Interface("capw0", "")
	}
	for i := range came {
		if err == nil {
			err = w.Frame(0, time.Unix(1800000000, int64(i)), came[i].bytes, "")
		}
	}
	if err = errors.Join(err, file.Close()); err != nil {
		t.Fatal(err)
	}
	if said, err := program.Command("replay", "-c", config, in, "-o", out).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, said)
	}
	all, _ := packets(t, out)
	if len(all) != len(came) {
		t.Fatalf("replay has %d frames of %d", len(all), len(came))
	}
	return all
}

// same compares a delivered frame with what replay made of it, but for its time and number.
func same(t *testing.T, want, got *packet) {
	t.Helper()
	wantBody, w, err1 := status.Split(want.bytes)
	body, g, err2 := status.Split(got.bytes)
	if err := errors.Join(err1, err2); err != nil {
		t.Fatal(err)
	}
	if verdict := binary.LittleEndian.AppendUint32([]byte{0}, uint32(g.Word)); !bytes.Equal(verdict, got.verdict) {
		t.Errorf("the verdict is %x, and the trailer's %x", got.verdict, verdict)
	}
	if got.id != uint64(g.Queue)<<48|g.Ordinal {
		t.Errorf("packet %#x is frame %d of queue %d", got.id, g.Ordinal, g.Queue)
	}
	g.Ordinal, g.Received, g.Queue = w.Ordinal, w.Received, w.Queue
	for i := range g.Records {
		g.Records[i].Handle = w.Records[i].Handle
	}
	if g != w || !bytes.Equal(wantBody, body) || got.comment != want.comment {
		t.Errorf("captured: %s\n%+v\nreplayed: %s\n%+v", got.comment, g, want.comment, w)
	}
}
