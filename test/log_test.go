package test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"tapsec/control"
	"tapsec/internal/audit"
	"tapsec/internal/lab/rig"
	"tapsec/internal/netns"
	"tapsec/internal/outbound"
	"tapsec/sa"
	"tapsec/test/program"
)

// ourServer has the transport behind the NIC take what goes to server.
const ourServer = "local: [198.51.100.10]\n" + moreSAs

// startDeaf starts `tapsec run --transport stack0` with something for standard
// error that cannot be waited on for a line, and returns when it answers.
func startDeaf(t *testing.T, stderr *os.File, config string, flags ...string) (*process, *control.Client) {
	t.Helper()
	dir, err := os.MkdirTemp("", "log") // a socket's path is short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	socket := filepath.Join(dir, "socket")
	p := &process{t: t, exited: make(chan error, 1)}
	p.cmd = program.Command(append([]string{"run", "-c", config, "--transport", "stack0", "--control", socket}, flags...)...)
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: unix.SIGKILL}
	p.cmd.Stdout, p.cmd.Stderr = &p.stdout, stderr
	if err := errors.Join(p.cmd.Start(), stderr.Close()); err != nil {
		t.Fatal(err)
	}
	go func() {
		p.exited <- p.cmd.Wait()
		close(p.exited)
	}()
	t.Cleanup(func() {
		p.cmd.Process.Kill()
		<-p.exited
	})
	var client *control.Client
	program.Await(t, "an answer", func() bool {
		client, err = control.Dial(socket)
		return err == nil
	})
	return p, client
}

// unread is a pipe that is full already.
func unread(t *testing.T) (reader, writer *os.File) {
	t.Helper()
	reader, writer, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { reader.Close() })
	room, err := unix.FcntlInt(writer.Fd(), unix.F_SETPIPE_SZ, 4096)
	if err == nil {
		_, err = writer.Write(make([]byte, room))
	}
	if err != nil {
		t.Fatal(err)
	}
	return reader, writer
}

// goodAmongBad sends good frames, each behind forged ones, and awaits the good ones.
func goodAmongBad(t *testing.T, s *outbound.Sealer, wire, stack port, good int, first uint64) {
	t.Helper()
	for i := range uint64(good) {
		for range 5 {
			wire.send(framed(spoiled(sealed(t, s, plain(server, 0, 50)))))
		}
		packet := plain(server, first+i, 50)
		wire.send(framed(sealed(t, s, packet)))
		if got := stack.next(); !bytes.Equal(got, framed(packet)) {
			t.Fatalf("got\n%x, want\n%x", got, framed(packet))
		}
	}
}

// TestUnreadLog: where nobody reads standard error, or whoever did has ended, frames
// go on, questions are answered, and SIGTERM ends the program with its summary.
func TestUnreadLog(t *testing.T) {
	rig.Require(t)
	for _, engine := range []string{"auto", "plain"} {
		for _, ended := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, reader ended: %t", engine, ended), func(t *testing.T) {
				reader, writer := unread(t)
				state := filepath.Join(t.TempDir(), "state")
				p, client := startDeaf(t, writer, write(t, ourServer), "--state", state, "--engine", engine)
				wire, stack := listen(t, "wire0"), listen(t, "stack0")
				if ended {
					reader.Close()
				}
				const good = 200
				goodAmongBad(t, sealer(t, sasOf(t, moreSAs)["web"]), wire, stack, good, 1)
				p.signal(unix.SIGHUP)
				if err := client.Get("transport", new(any)); err != nil {
					t.Error(err)
				}
				sum := readSummary(t, p.stop())
				if got := sum["transport/icv"]; len(got) == 0 || got[0] != 5*good {
					t.Errorf("the summary has icv %v, want %d", got, 5*good)
				}
				if _, err := os.Stat(state); err != nil {
					t.Error(err)
				}
			})
		}
	}
}

// TestUnreadError: what ends the program is said where nobody reads, for a moment.
func TestUnreadError(t *testing.T) {
	rig.Require(t)
	_, writer := unread(t)
	p, _ := startDeaf(t, writer, write(t, ourServer))
	if err := netns.Delete("stack0"); err != nil {
		t.Fatal(err)
	}
	p.end(3)
}

// TestStoppedTerminal: on a terminal that was stopped, as by Ctrl-S, the progress
// line holds up neither frames nor SIGTERM.
func TestStoppedTerminal(t *testing.T) {
	rig.Require(t)
	p, _ := startDeaf(t, stoppedTerminal(t), write(t, ourServer))
	wire, stack := listen(t, "wire0"), listen(t, "stack0")
	s := sealer(t, sasOf(t, moreSAs)["web"])
	for i := range uint64(30) { // for longer than it takes until there is progress to show
		goodAmongBad(t, s, wire, stack, 1, i)
		time.Sleep(100 * time.Millisecond)
	}
	p.stop()
}

// stoppedTerminal is a terminal on which nothing can be written.
func stoppedTerminal(t *testing.T) *os.File {
	t.Helper()
	main, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { main.Close() })
	number, err := unix.IoctlGetInt(int(main.Fd()), unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(int(main.Fd()), unix.TIOCSPTLCK, 0)
	}
	if err != nil {
		t.Fatal(err)
	}
	terminal, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0)
	if err == nil {
		const off = 0 // TCOOFF
		err = unix.IoctlSetInt(int(terminal.Fd()), unix.TCXONC, off)
	}
	if err != nil {
		t.Fatal(err)
	}
	return terminal
}

// lines waits for the program's end and returns its log.
func (p *process) lines() []string {
	p.stop()
	return strings.Split(p.logged(), "\n")
}

// events sums what the log tells of a reason: the lines, and the events that they
// say were left out.
func events(lines []string, reason string) (said, left int) {
	for _, line := range lines {
		if !strings.Contains(line, "reason="+reason+" ") && !strings.HasSuffix(line, "reason="+reason) {
			continue
		}
		if !strings.Contains(line, "more of the same") {
			said++
		}
		if _, n, ok := strings.Cut(line, "suppressed="); ok {
			n, _, _ := strings.Cut(n, " ")
			more, _ := strconv.Atoi(n)
			left += more
		}
	}
	return said, left
}

// mostSince is how many lines there may be of a kind on one SA.
func mostSince(began time.Time) int { return audit.PerSA * (2 + int(time.Since(began)/time.Second)) }

// TestFloodHidesNothing: a flood of one kind hides no frame of another, every drop
// is in the log or in a count of it, and each line has one time (contract, What is
// logged).
func TestFloodHidesNothing(t *testing.T) {
	rig.Require(t)
	p := start(t, write(t, ourServer), "--transport", "stack0")
	wire, stack := listen(t, "wire0"), listen(t, "stack0")
	web := sasOf(t, moreSAs)["web"]
	s, other := sealer(t, web), sealer(t, with(web, func(a *sa.SA) { a.SPI = 0xdddd }))
	good := framed(sealed(t, s, plain(server, 1, 100)))
	wire.send(good)
	stack.next()
	const flood = 197
	began := time.Now()
	for range flood {
		wire.send(framed(sealed(t, other, plain(server, 2, 100))))
	}
	wire.send(framed(spoiled(sealed(t, s, plain(server, 3, 100)))))
	wire.send(good)
	said := p.waitLog("reason=transport/replay")
	if n, _ := events(strings.Split(said, "\n"), "transport/icv"); n != 1 {
		t.Errorf("the bad ICV is hidden:\n%s", said)
	}
	said += "\n" + strings.Join(p.lines(), "\n")
	lines := strings.Split(said, "\n")
	if n, left := events(lines, "transport/no-sa"); n+left != flood || n > mostSince(began) {
		t.Errorf("%d lines, and %d events left out, of %d:\n%s", n, left, flood, said)
	}
	for _, line := range lines {
		if line != "" && strings.Count(line, "time=") != 1 {
			t.Errorf("not one time: %s", line)
		}
	}
}

func with(a *sa.SA, change func(*sa.SA)) *sa.SA {
	b := *a
	change(&b)
	return &b
}

// TestNICLogs: a NIC without a transport logs what it finds bad, at the same rate,
// also where frames carry no trailer.
func TestNICLogs(t *testing.T) {
	rig.Require(t)
	p := launch(t, write(t, moreSAs), "--form", "decap", "--annotate", "none", "--log-format", "json")
	p.waitLog(`"msg":"ready"`)
	wire, host := listen(t, "wire0"), listen(t, "host0")
	sas := sasOf(t, moreSAs)
	const flood = 100
	began := time.Now()
	for range flood {
		wire.send(framed(spoiled(sealed(t, sealer(t, sas["web"]), plain(server, 1, 100)))))
		host.next()
	}
	wire.send(framed(spoiled(sealed(t, sealer(t, sas["site"]), plain(interior, 2, 100)))))
	host.next()
	before := time.Now()
	lines, sums := p.lines(), map[string]int{}
	for _, line := range lines {
		var said struct {
			Time       time.Time
			Reason, SA string
			Status     string
			Suppressed int
		}
		if err := json.Unmarshal([]byte(line), &said); err != nil || strings.Count(line, `"time":`) != 1 {
			t.Fatalf("%v: %s", err, line)
		}
		if said.Reason == "nic/esp-icv" {
			sums[said.SA]++
			sums["left out"] += said.Suppressed
			if said.SA != "" && (said.Time.After(before) || !strings.HasSuffix(said.Status, "ESP_AUTH_FAILED")) {
				t.Error(line)
			}
		}
	}
	if sums["site"] != 1 || sums["web"] == 0 || sums["web"] > mostSince(began) || sums["web"]+sums["left out"] != flood {
		t.Errorf("%v:\n%s", sums, strings.Join(lines, "\n"))
	}
}

// TestSendLogs: what the stack sends and the program drops is logged like what it
// receives.
func TestSendLogs(t *testing.T) {
	rig.Require(t)
	p := start(t, write(t, ourServer+"policy:\n  - {action: discard, match: {dst: 192.0.2.0/24}}\n"), "--transport", "stack0")
	wire, stack := listen(t, "wire0"), listen(t, "stack0")
	began := time.Now()
	for range 50 {
		stack.send(framed(plain("192.0.2.9:9", 1, 100)))
	}
	stack.send(framed(plain("203.0.113.9:9", 1, 100)))
	wire.next() // so that those before it are done
	said := p.waitLog("reason=outbound/discarded")
	said += "\n" + strings.Join(p.lines(), "\n")
	if n, left := events(strings.Split(said, "\n"), "outbound/discarded"); n+left != 50 || n > mostSince(began) {
		t.Errorf("%d lines, %d left out:\n%s", n, left, said)
	}
}
