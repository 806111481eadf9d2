package test

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"tapsec/appliance"
	"tapsec/capture"
	"tapsec/configs"
	"tapsec/control"
	"tapsec/internal/account"
	"tapsec/internal/dissector"
	"tapsec/internal/explain"
	"tapsec/internal/lab/conformance"
	"tapsec/internal/lab/rig"
	"tapsec/internal/netns"
	"tapsec/sa"
	"tapsec/status"
	"tapsec/tap"
	"tapsec/test/program"
	"tapsec/test/testkit"
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

// begin starts a command that reads frames.
func begin(t *testing.T, socket string, args ...string) *watching {
	t.Helper()
	client, err := control.Dial(socket)
	if err != nil {
		t.Fatal(err)
	}
	w := &watching{t: t, client: client, cmd: program.Command(append(args, "--from", socket)...)}
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
	return w
}

// watch starts one, and returns when it gets them.
func watch(t *testing.T, socket string, args ...string) *watching {
	t.Helper()
	client, err := control.Dial(socket)
	if err != nil {
		t.Fatal(err)
	}
	before, _, _ := readers(t, client)
	w := begin(t, socket, args...)
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
	for _, l := range conformance.Contract() {
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

func captureLab(t *testing.T, config string, l *conformance.Setup) {
	dir := sockets(t)
	socket, file := filepath.Join(dir, "nic"), filepath.Join(dir, "live.pcapng")
	p := start(t, config, "--wire", "capw0", "--host", "caph0", "--control", socket)
	wire, host := listen(t, "capw0"), listen(t, "caph0")
	w, traced := watch(t, socket, "capture", "-w", file), watch(t, socket, "trace", "--json")
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
	traced.stop()
	p.stop()
	came, left, lost := pairs(t, file)
	if len(came) < len(sent) || lost != 0 {
		t.Fatalf("%d frames came, %d were lost, and %d were sent", len(came), lost, len(sent))
	}
	ref := replayed(t, config, came)
	for i, one := range left {
		same(t, &ref[i], &one)
	}
	explained(t, config, traced.stdout.Bytes(), came)
	keyless(t, l, file, traced.stdout.Bytes())
}

// explained compares what trace said of frames with what explain says of them.
func explained(t *testing.T, config string, traced []byte, came []packet) {
	t.Helper()
	c, err := configs.Load(config)
	if err != nil {
		t.Fatal(err)
	}
	nic, err := appliance.NewOffline(c)
	if err != nil {
		t.Fatal(err)
	}
	var file bytes.Buffer
	w, err := capture.NewWriter(&file)
	if err == nil {
		_, err = w.Interface("capw0", "")
	}
	var numbers []int
	for i := range came {
		if numbers = append(numbers, i+1); err == nil {
			err = w.Frame(0, time.Unix(1800000000, int64(i)), came[i].bytes, "")
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	frames, err := capture.NewReader(&file)
	if err != nil {
		t.Fatal(err)
	}
	want, err := explain.Frames(nic, c, frames, numbers)
	if err != nil {
		t.Fatal(err)
	}
	lines := bytes.Split(bytes.TrimSpace(traced), []byte("\n"))
	if len(lines) != len(came) {
		t.Fatalf("%d frames were traced, and %d captured", len(lines), len(came))
	}
	for i, line := range lines {
		var got explain.Traced
		decode(t, line, &got)
		d := want[i].Document()
		d.Frame, d.Time, d.Interface = got.Frame, got.Time, got.Interface
		d.Story, d.NearMisses = []string{}, []account.Finding{} // which a whole capture tells
		if uint64(got.Frame) != came[i].id || got.Lost != 0 || !reflect.DeepEqual(&got.Document, d) {
			t.Errorf("traced\n%+v\nexplained\n%+v", got, d)
		}
	}
}

// keyless looks for the keys of a lab, as bytes and as text.
func keyless(t *testing.T, l *conformance.Setup, file string, traced []byte) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range l.SAs() {
		for _, key := range []sa.Key{s.EncryptionKey, s.IntegrityKey} {
			if b := key.Bytes(); len(b) >= 8 && (bytes.Contains(text, b) || bytes.Contains(bytes.ToLower(traced), []byte(hex.EncodeToString(b)))) {
				t.Errorf("a key of %s is in what was captured or traced", s.Name)
			}
		}
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

// taken is a running NIC, the other ends of its interfaces, and where captures of it go.
type taken struct {
	*process
	t          *testing.T
	dir        string
	socket     string
	wire, host port
	m          *mixer
	sent       [][]byte
}

// takeFrom starts a NIC between two TAPs.
func takeFrom(t *testing.T, name string, flags ...string) *taken {
	t.Helper()
	rig.Require(t)
	k := &taken{t: t, dir: sockets(t), m: newMixer(t)}
	k.socket = filepath.Join(k.dir, "nic")
	k.process = start(t, write(t, moreSAs), append([]string{"--wire", name + "w", "--host", name + "h", "--control", k.socket}, flags...)...)
	k.wire, k.host = listen(t, name+"w"), listen(t, name+"h")
	return k
}

func (k *taken) file(name string) string { return filepath.Join(k.dir, name) }

// send sends so many frames of all kinds, and has the host get each of them.
func (k *taken) send(n int) {
	k.t.Helper()
	for range n {
		s := k.m.sample(len(k.sent)%kinds, 8+len(k.sent)*13%1300)
		k.sent = append(k.sent, s.frame)
		k.wire.send(s.frame)
		k.host.check(s)
	}
}

// ofOurs are those of a capture's frames that a test sent.
func ofOurs(all []packet) (some []packet) {
	for _, p := range all {
		if bytes.HasPrefix(p.bytes, ours) {
			some = append(some, p)
		}
	}
	return some
}

// complete reports how many frames of ours a capture has. Each is there once, in order.
func (k *taken) complete(file string, last uint64) (frames int) {
	k.t.Helper()
	came, left, lost := pairs(k.t, file)
	if lost != 0 {
		k.t.Errorf("%s: %d frames are lost", file, lost)
	}
	for _, p := range left {
		_, t, err := status.Split(p.bytes)
		if err != nil || last > 0 && t.Ordinal != last+1 {
			k.t.Fatalf("%s: frame %d behind %d (%v)", file, t.Ordinal, last, err)
		}
		last = t.Ordinal
	}
	return len(ofOurs(came))
}

// A capture that nobody reads, while frames come as fast as they may: every frame is
// delivered, and what the capture lacks is what it says that it lacks.
func TestCaptureStuck(t *testing.T) {
	const frames, window = 9000, 100
	k := takeFrom(t, "cst")
	client, err := control.Dial(k.socket)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	stream, err := client.Capture(ctx, control.Frames{})
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close()
	one := k.m.sample(1, 1350).frame // which the NIC takes again and again
	var all [][]byte
	for range frames {
		all = append(all, one)
	}
	seen := k.wire.pour(all, window)
	for i := range frames {
		k.host.next()
		seen.Store(int64(i + 1))
	}
	stop()
	file := k.file("stuck.pcapng")
	text, err := io.ReadAll(stream)
	if err == nil {
		err = os.WriteFile(file, text, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	came, left, lost := pairs(t, file)
	missing, last := uint64(0), uint64(0)
	for _, p := range left {
		_, trailer, err := status.Split(p.bytes)
		if err != nil {
			t.Fatal(err)
		}
		if missing += p.lost; last > 0 && trailer.Ordinal != last+1+p.lost {
			t.Errorf("frame %d behind %d, and %d are said to be missing", trailer.Ordinal, last, p.lost)
		}
		last = trailer.Ordinal
	}
	if lost == 0 || missing > lost || uint64(len(came))+lost < frames {
		t.Errorf("%d frames taken, %d of %d lost before one of them, of %d sent", len(came), missing, lost, frames)
	}
	program.Await(t, "the counters", func() bool {
		n, got, gone := readers(t, client)
		return n == 0 && gone > 0 && got+gone >= frames // a frame of the kernel's may come while it closes
	})
	sum := readSummary(t, k.stop())
	if sum["frames in"][0] < frames || sum["frames in"][0] != sum["frames out"][0]+sum["host_down"][0] {
		t.Errorf("moved %v", sum)
	}
}

// A reader that is killed leaves what it had, but perhaps for the end of the last packet,
// and room for others.
func TestCaptureKilled(t *testing.T) {
	k := takeFrom(t, "cki")
	w := watch(t, k.socket, "capture", "-w", k.file("killed.pcapng"))
	k.send(200)
	program.Await(t, "frames in the file", func() bool {
		info, err := os.Stat(k.file("killed.pcapng"))
		return err == nil && info.Size() > 1000
	})
	w.cmd.Process.Kill()
	w.cmd.Wait()
	file, err := os.Open(k.file("killed.pcapng"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	n, blocks := 0, capture.NewBlocks(file)
	for ; err == nil; n++ {
		_, err = blocks.Next()
	}
	if n < 10 || err != io.EOF && err != io.ErrUnexpectedEOF {
		t.Errorf("%d blocks, and then %v", n, err)
	}
	k.send(10)
	program.Await(t, "the reader's end", func() bool { n, _, _ := readers(t, w.client); return n == 0 })
	again := watch(t, k.socket, "capture", "-w", k.file("again.pcapng"), "--count", "16")
	k.send(32)
	if said := again.end(0); said != "16 frames captured, 0 lost\n" {
		t.Error(said)
	}
	if all, _ := packets(t, k.file("again.pcapng")); len(all) != 32 {
		t.Errorf("%d packets", len(all))
	}
}

// A terminal that hangs up ends a capture as SIGINT does.
func TestCaptureHangUp(t *testing.T) {
	k := takeFrom(t, "chu")
	w := watch(t, k.socket, "capture", "-w", k.file("all.pcapng"))
	k.send(50)
	if err := w.cmd.Process.Signal(unix.SIGHUP); err != nil {
		t.Fatal(err)
	}
	if said := w.end(0); !strings.HasSuffix(said, " 0 lost\n") {
		t.Error(said)
	}
	if n := k.complete(k.file("all.pcapng"), 0); n != 50 {
		t.Errorf("%d frames of 50", n)
	}
}

// clog writes to a pipe until the kernel takes no more, and returns what it says then.
func clog(pipe *os.File) (err error) {
	raw, refused := pipe.SyscallConn()
	if refused == nil {
		refused = raw.Control(func(fd uintptr) {
			for err = unix.SetNonblock(int(fd), true); err == nil; {
				_, err = unix.Write(int(fd), make([]byte, os.Getpagesize()))
			}
		})
	}
	return cmp.Or(refused, err)
}

// A second SIGINT ends what waits for the reader of its output.
func TestCaptureUnread(t *testing.T) {
	k := takeFrom(t, "cur")
	client, err := control.Dial(k.socket)
	if err != nil {
		t.Fatal(err)
	}
	for _, what := range [][]string{{"capture", "-w", "-"}, {"trace"}} {
		from, to, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		defer from.Close()
		defer to.Close()
		if err := clog(to); err != unix.EAGAIN {
			t.Fatalf("a pipe that nobody reads: %v", err)
		}
		w := &watching{t: t, client: client, cmd: program.Command(append(what, "--from", k.socket)...)}
		w.cmd.Stdout, w.cmd.Stderr = to, &w.stderr // blocking, as the program gets it
		if err := w.cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = w.cmd.Process.Kill() }) // an error: it has ended
		program.Await(t, "reader", func() bool { n, _, _ := readers(t, client); return n > 0 })
		k.send(1)
		ended := make(chan error, 1)
		go func() { ended <- w.cmd.Wait() }()
		program.Await(t, "its end", func() bool {
			_ = w.cmd.Process.Signal(os.Interrupt) // an error: it has ended
			select {
			case <-ended:
				return true
			default:
				return false
			}
		})
		program.Await(t, "the reader's end", func() bool { n, _, _ := readers(t, client); return n == 0 })
	}
}

// When the NIC ends, the capture has all of its frames and ends well; when it is killed,
// the file does.
func TestCaptureOutlives(t *testing.T) {
	k := takeFrom(t, "cou")
	w := watch(t, k.socket, "capture", "-w", k.file("all.pcapng"))
	k.send(300)
	k.stop()
	if said := w.end(0); !strings.HasSuffix(said, " 0 lost\n") {
		t.Error(said)
	}
	if n := k.complete(k.file("all.pcapng"), 0); n != 300 {
		t.Errorf("%d frames of 300", n)
	}

	k = takeFrom(t, "coV")
	w = watch(t, k.socket, "capture", "-w", k.file("some.pcapng"))
	k.send(300)
	k.cmd.Process.Kill()
	if said := w.end(1); !strings.Contains(said, "ended before its time") {
		t.Error(said)
	}
	if n := k.complete(k.file("some.pcapng"), 0); n == 0 || n > 300 {
		t.Errorf("%d frames", n)
	}
}

// A ring keeps the latest files. Each can be read alone, and no pair is torn.
func TestCaptureRing(t *testing.T) {
	k := takeFrom(t, "cri")
	w := watch(t, k.socket, "capture", "-w", k.file("ring.pcapng"), "--ring", "3", "--size", "64k")
	k.send(600)
	w.stop()
	files, err := filepath.Glob(k.file("ring_0*_20*.pcapng"))
	if err != nil || len(files) != 3 {
		t.Fatalf("%v, %v", files, err)
	}
	last, frames := uint64(0), 0
	for _, file := range files {
		info, err := os.Stat(file)
		if err != nil || info.Size() > 64<<10+1<<10 || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", file, info, err)
		}
		frames += k.complete(file, last)
		all, _ := packets(t, file)
		_, trailer, _ := status.Split(all[len(all)-1].bytes)
		last = trailer.Ordinal
	}
	if frames < 60 || frames > 600-60 {
		t.Errorf("%d frames in %v", frames, files)
	}
}

// Whatever moves the frames, and through however many queues, the capture has them all.
func TestCaptureEngines(t *testing.T) {
	for name, flags := range map[string][]string{
		"ring": {"--engine", "ring"}, "plain": {"--engine", "plain"}, "queues": {"--queues", "2"}, "plainqueues": {"--queues", "2", "--engine", "plain"},
	} {
		t.Run(name, func(t *testing.T) {
			if engine, why := tap.Probe(); engine != tap.Ring && name == "ring" {
				rig.Missing(t, why)
			}
			captureSome(t, takeFrom(t, "ce"+name[:1]+name[len(name)-1:], flags...))
		})
	}
	for _, engine := range []string{"ring", "plain", "xdp"} {
		t.Run("attached "+engine, func(t *testing.T) {
			if lacking := tap.CanRedirect(); engine == "xdp" && lacking != nil {
				rig.Missing(t, lacking.Error())
			}
			rig.Require(t)
			k := &taken{t: t, dir: sockets(t), m: newMixer(t)}
			k.socket = filepath.Join(k.dir, "nic")
			in(t, nil, "link add cveth0 type veth peer name cveth1", "link set cveth0 up", "link set cveth1 up")
			t.Cleanup(func() { netns.Delete("cveth0") })
			if err := netns.Ready("cveth0", "cveth1"); err != nil {
				t.Fatal(err)
			}
			k.process = start(t, write(t, "wire: {name: cveth0, attach: true}\n"+moreSAs), "--host", "cveh", "--engine", engine, "--control", k.socket)
			k.wire, k.host = listen(t, "cveth1"), listen(t, "cveh")
			captureSome(t, k)
			k.stop()
		})
	}
}

func captureSome(t *testing.T, k *taken) {
	const frames = 400
	w := watch(t, k.socket, "capture", "-w", k.file("some.pcapng"))
	k.send(frames)
	w.stop()
	came, left, lost := pairs(t, k.file("some.pcapng"))
	last := map[uint16]uint64{}
	for i, p := range left {
		_, trailer, err := status.Split(p.bytes)
		if before, known := last[trailer.Queue]; err != nil || known && trailer.Ordinal != before+1 {
			t.Fatalf("packet %d: frame %d of queue %d behind %d (%v)", i, trailer.Ordinal, trailer.Queue, before, err)
		}
		last[trailer.Queue] = trailer.Ordinal
	}
	mine := ofOurs(came)
	if len(mine) != frames || lost != 0 {
		t.Fatalf("%d frames of %d, %d lost", len(mine), frames, lost)
	}
	for i, p := range mine {
		if !bytes.Equal(p.bytes, k.sent[i]) {
			t.Fatalf("frame %d came as\n%x, and was sent as\n%x", i, p.bytes, k.sent[i])
		}
	}
}

// tshark runs tshark with our dissector on a capture.
func tsharkOn(t *testing.T, file string, args ...string) []string {
	t.Helper()
	testkit.Programs(t, "tshark")
	lua := filepath.Join(t.TempDir(), "tapsec.lua")
	if err := os.WriteFile(lua, []byte(dissector.Lua()), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("tshark", append([]string{"-X", "lua_script:" + lua, "-nr", file}, args...)...).Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.Split(strings.TrimSuffix(string(out), "\n"), "\n")
}

// Wireshark reads a live capture through a pipe: interfaces, pairs, comments, the word as the
// hardware's verdict, and with our dissector the trailer.
func TestCaptureInTshark(t *testing.T) {
	k := takeFrom(t, "cts")
	testkit.Programs(t, "tshark")
	w := watch(t, k.socket, "capture", "-w", "-")
	k.send(2 * kinds)
	w.stop()
	file := k.file("piped.pcapng")
	if err := os.WriteFile(file, w.stdout.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	fields := []string{"frame.interface_name", "frame.packet_id", "frame.interface_queue", "frame.verdict.hw", "tapsec.word", "tapsec.reason", "frame.comment"}
	args := []string{"-T", "fields", "-Y", "eth.src == 02:00:00:00:00:01"}
	for _, f := range fields {
		args = append(args, "-e", f)
	}
	lines := tsharkOn(t, file, args...)
	_, left, _ := pairs(t, file)
	left = ofOurs(left)
	if len(lines) != 2*len(left) || len(left) != 2*kinds {
		t.Fatalf("%d packets of %d frames:\n%s", len(lines), len(left), strings.Join(lines, "\n"))
	}
	for i, p := range left {
		_, trailer, err := status.Split(p.bytes)
		if err != nil {
			t.Fatal(err)
		}
		word := binary.LittleEndian.AppendUint32(nil, uint32(trailer.Word))
		for side, rest := range []string{"\t", fmt.Sprintf("0x%s\t%d", trailer.Word, trailer.Reason)} {
			iface := []string{"ctsw", "ctsh"}[side]
			want := fmt.Sprintf("%s\t%d\t0\t%x\t%s\t%s", iface, trailer.Ordinal, word, rest, p.comment)
			got := strings.Split(lines[2*i+side], "\t")
			got[3] = strings.NewReplacer(" ", "", ":", "").Replace(got[3]) // which versions write otherwise
			if line := strings.Join(got, "\t"); line != want {
				t.Errorf("tshark says\n%q, want\n%q", line, want)
			}
		}
	}
	if failed := tsharkOn(t, file, "-Y", "tapsec.reason"); len(failed) != len(left) {
		t.Errorf("%d frames have a trailer, want %d", len(failed), len(left))
	}
}

// Only what was asked for is captured, and as much of it.
func TestCaptureChooses(t *testing.T) {
	k := takeFrom(t, "cch")
	captures := map[string]*watching{}
	for name, flags := range map[string][]string{
		"failed": {"--only", "failed"}, "spi": {"--spi", "0xdddd"}, "headers": {"--headers", "--snaplen", "200", "--sa", "web"}, "host": {"--host", "10.0.0.1"},
	} {
		captures[name] = watch(t, k.socket, append([]string{"capture", "-w", k.file(name)}, flags...)...)
	}
	k.send(10 * kinds)
	for _, w := range captures {
		w.stop()
	}
	_, failed, _ := pairs(t, k.file("failed"))
	for _, p := range failed {
		if !bytes.Contains(p.verdict[3:], []byte{0}) || p.verdict[3] == 0 { // the status
			t.Errorf("verdict %x is captured as failed", p.verdict)
		}
	}
	if len(failed) != 30 { // rows 8, 10 and 13
		t.Errorf("%d failed frames, of 30", len(failed))
	}
	if _, spi, _ := pairs(t, k.file("spi")); len(spi) != 10 {
		t.Errorf("%d frames of the stranger's SPI, of 10", len(spi))
	}
	if _, host, _ := pairs(t, k.file("host")); len(host) != 10 { // row 6, whose tunnel was opened
		t.Errorf("%d frames to a host in the tunnel, of 10", len(host))
	}
	came, headers, _ := pairs(t, k.file("headers"))
	if len(headers) != 40 { // rows 5, 8, 11 and 13
		t.Errorf("%d frames of SA web, of 40", len(headers))
	}
	for i, p := range headers {
		opened := len(p.bytes) > 14+20+8+8 && p.verdict[3] == 0 || len(p.bytes) > 200
		if opened || len(came[i].bytes) > 200 || p.length <= len(p.bytes) && p.verdict[3] == 0 {
			t.Errorf("%s: %d bytes of %d delivered, %d as it came", p.comment, len(p.bytes), p.length, len(came[i].bytes))
		}
	}
}

// With other forms frames are captured as they are delivered.
func TestCaptureForms(t *testing.T) {
	for name, flags := range map[string][]string{"cfd": {"--form", "decap"}, "cfn": {"--form", "decap", "--annotate", "none"}} {
		k := takeFrom(t, name, flags...)
		w := watch(t, k.socket, "capture", "-w", k.file("form"))
		var want [][]byte
		for kind := range kinds {
			k.wire.send(k.m.sample(kind, 300).frame)
			want = append(want, bytes.Clone(k.host.next()))
		}
		w.stop()
		_, left, _ := pairs(t, k.file("form"))
		left = ofOurs(left)
		if len(left) != len(want) {
			t.Fatalf("%d frames of %d", len(left), len(want))
		}
		for i, p := range left {
			if !bytes.Equal(p.bytes, want[i]) {
				t.Errorf("%s: frame %d was captured as\n%x, delivered as\n%x", name, i, p.bytes, want[i])
			}
		}
		k.stop()
	}
}

// In front of a transport in the same process, the comment has both verdicts.
func TestCaptureTransport(t *testing.T) {
	rig.Require(t)
	dir := sockets(t)
	socket, file := filepath.Join(dir, "nic"), filepath.Join(dir, "both")
	p := start(t, write(t, "local: [192.0.2.2, 198.51.100.10]\n"+moreSAs), "--wire", "ctrw", "--transport", "ctrs", "--control", socket)
	wire, stack, m := listen(t, "ctrw"), listen(t, "ctrs"), newMixer(t)
	w, traced := watch(t, socket, "capture", "-w", file), watch(t, socket, "trace", "--spi", "0xc002")
	good, bad := m.sample(0, 100).frame, m.sample(3, 100).frame
	for _, frame := range [][]byte{good, good, bad} { // the second is a replay
		wire.send(frame)
	}
	stack.next()
	wire.send(m.sample(0, 100).frame)
	stack.next() // those before are judged
	w.stop()
	traced.stop()
	_, left, _ := pairs(t, file)
	left = ofOurs(left)
	want := []string{"every IPsec portion checked is good; the transport delivers it", "refuses its number, which came before or is too old; the transport drops it, replay: ",
		"CRYPTO_TRANSPORT_ESP_AUTH_FAILED  transport esp web seq 2: the ESP ICV is wrong; the transport drops it, icv: ", "; the transport delivers it"}
	if len(left) != len(want) {
		t.Fatalf("%d frames, want %d", len(left), len(want))
	}
	for i, p := range left {
		if !strings.Contains(p.comment, want[i]) {
			t.Errorf("frame %d: %q, want %q in it", i, p.comment, want[i])
		}
	}
	if text := traced.stdout.String(); strings.Count(text, "\nhost       the transport d") != 4 {
		t.Errorf("the trace says\n%s", text)
	}
	p.stop()
}

// A disk without room, and a pipe whose reader has left, end a capture with a sentence. The
// frames go on.
func TestCaptureFull(t *testing.T) {
	k := takeFrom(t, "cfu")
	full := begin(t, k.socket, "capture", "-w", "/dev/full")
	if said := full.end(1); !strings.Contains(said, "no space left on device") {
		t.Error(said)
	}
	pipe := k.file("pipe")
	if err := unix.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	left := begin(t, k.socket, "capture", "-w", pipe)
	reader, err := os.Open(pipe) // which waits for the writer
	if err != nil {
		t.Fatal(err)
	}
	reader.Close()
	k.send(10)
	k.wire.keepSending(k.sent[0]) // until the capture notices
	if said := left.end(1); !strings.Contains(said, "its reader left after at most ") {
		t.Error(said)
	}
	program.Await(t, "the readers' end", func() bool { n, _, _ := readers(t, full.client); return n == 0 })
}
