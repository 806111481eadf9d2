package test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"tapsec/internal/lab/forge"
	"tapsec/internal/lab/rig"
	"tapsec/internal/outbound"
	"tapsec/test/program"
	"tapsec/wire"
)

// home is one host with its peer's SAs, through all the lives of the program. It
// knows every nonce that was sent and every number that was taken.
type home struct {
	*process
	config  string
	wire    port
	stack   port
	sealer  *outbound.Sealer // the peer's
	sent    map[string]bool
	taken   map[uint64]bool
	highest uint32 // number sent
}

const (
	atHome = "local: [192.0.2.2]" + twoWays
	// What is left of a file that was cut in the middle of a write, and still parses.
	cutFile = "local: [192.0.2.2]\nsas:\n"
	// A lease of a program that was killed after a few packets (docs/decisions/0008-ledger.md).
	lease = 64
)

func newHome(t *testing.T, flags ...string) *home {
	h := &home{config: write(t, atHome), sealer: sealer(t, sasOf(t, atHome)["to-us"]), sent: map[string]bool{}, taken: map[uint64]bool{}}
	h.live(t, flags...)
	return h
}

// live begins a life.
func (h *home) live(t *testing.T, flags ...string) {
	t.Helper()
	h.process = start(t, h.config, append(flags, "--transport", "stack0")...)
	h.wire, h.stack = listen(t, "wire0"), listen(t, "stack0")
}

// die ends it as kill -9 does.
func (h *home) die() {
	h.t.Helper()
	h.signal(unix.SIGKILL)
	<-h.exited
	h.wire.Close()
	h.stack.Close()
	program.Await(h.t, "the kernel takes the interfaces away", func() bool { // some time after the process
		_, wire := net.InterfaceByName("wire0")
		_, stack := net.InterfaceByName("stack0")
		return wire != nil && stack != nil
	})
}

// reload puts another text in force.
func (h *home) reload(text string) {
	h.t.Helper()
	rewrite(h.t, h.config, text)
	h.signal(unix.SIGHUP)
	h.waitLog("msg=reloaded")
}

// fence passes any SA, and tells that what was sent before it has gone its way.
var fence = append(bytes.Clone(ours), 0x88, 0xb5, 0, 0)

// send has the stack send so many packets, and returns how many came out. No nonce
// comes twice under the key, and nothing is in clear.
func (h *home) send(packets int) (came int) {
	h.t.Helper()
	frame := framed(forge.UDP(nil, netip.MustParseAddrPort("192.0.2.2:7"), netip.MustParseAddrPort("192.0.2.1:9"), make([]byte, 100)))
	for range packets {
		h.stack.send(frame)
	}
	h.stack.send(fence)
	for {
		got := h.wire.next()
		if bytes.HasPrefix(got, fence) {
			return came
		}
		if got[14+9] != wire.ProtoESP {
			h.t.Fatalf("in clear:\n%x", got)
		}
		iv := string(got[14+28 : 14+36])
		if h.sent[iv] {
			h.t.Fatalf("the nonce %x comes twice under one key", iv)
		}
		h.sent[iv] = true
		h.highest = binary.BigEndian.Uint32(got[14+24:])
		came++
	}
}

// receive has packets with these numbers come, and returns how many are delivered.
// No number is twice.
func (h *home) receive(numbers ...uint64) (delivered int) {
	h.t.Helper()
	for _, n := range numbers {
		h.sealer.SetNumber(0, n)
		payload := binary.BigEndian.AppendUint64(nil, n)
		h.wire.send(framed(sealed(h.t, h.sealer, forge.UDP(nil, netip.MustParseAddrPort("192.0.2.1:7"), netip.MustParseAddrPort("192.0.2.2:9"), payload))))
	}
	h.wire.send(fence)
	for {
		got := h.stack.next()
		if bytes.HasPrefix(got, fence) {
			return delivered
		}
		n := binary.BigEndian.Uint64(got[14+28:])
		if h.taken[n] {
			h.t.Fatalf("number %d is delivered twice", n)
		}
		h.taken[n] = true
		delivered++
	}
}

// numbers are those from first to last.
func numbers(first, last uint64) (all []uint64) {
	for n := first; n <= last; n++ {
		all = append(all, n)
	}
	return all
}

// want compares counts.
func (h *home) want(what string, got, want int) {
	h.t.Helper()
	if got != want {
		h.t.Fatalf("%s: %d packets, want %d", what, got, want)
	}
}

// TestKeyOutlivesConfiguration: windows and numbers live as long as the process,
// though a reload drops SAs and a later one brings them back (contract,
// Lifecycle). The log says which went, and which came.
func TestKeyOutlivesConfiguration(t *testing.T) {
	rig.Require(t)
	h := newHome(t)
	h.want("at first", h.receive(numbers(1, 10)...), 10)
	h.want("at first", h.send(5), 5)
	for name, text := range map[string]string{
		"dropped":           strings.Replace(onlyToUs, "0xd002", "0xd009", 1),
		"cut":               cutFile,
		"without direction": strings.TrimPrefix(atHome, "local: [192.0.2.2]"),
		"another window":    strings.ReplaceAll(atHome, "mode: transport,", "mode: transport, window: 1024,"),
	} {
		h.reload(text)
		rewrite(t, h.config, atHome)
		h.signal(unix.SIGHUP)
		said := h.waitLog("msg=reloaded")
		if name == "cut" && (!strings.Contains(said, "came=\"to-peer to-us\"") && !strings.Contains(said, "came=\"to-us to-peer\"")) {
			t.Errorf("the reload does not say which SAs came:\n%s", said)
		}
		h.want(name+", replay", h.receive(numbers(1, 10)...), 0)
		before := h.highest
		h.want(name, h.send(5), 5)
		if h.highest != before+5 {
			t.Errorf("%s: number %d after %d", name, h.highest, before)
		}
	}
	h.want("new ones", h.receive(numbers(11, 20)...), 10)
	h.stop()
}

// TestLedgerRestart: with a state file they live as long as the key. After an
// ordinary end nothing is lost; after kill -9 it begins again by itself, and loses
// at most a lease.
func TestLedgerRestart(t *testing.T) {
	rig.Require(t)
	state := filepath.Join(t.TempDir(), "state.json")
	h := newHome(t, "--state", state)
	h.want("at first", h.receive(append(numbers(1, 10), 20)...), 11)
	h.want("at first", h.send(5), 5)
	h.stop()

	h.live(t, "--state", state)
	h.want("replay", h.receive(append(numbers(1, 10), 20)...), 0)
	h.want("late ones", h.receive(numbers(1, 20)...), 9)
	h.want("numbers", h.send(5), 5)
	if h.highest != 10 {
		t.Errorf("number %d after two times five packets", h.highest)
	}

	next := uint64(21)
	for range 3 {
		h.die()
		h.live(t, "--state", state)
		h.want("replay", h.receive(numbers(1, next-1)...), 0)
		if lost := lease - h.receive(numbers(next, next+lease-1)...); lost > lease {
			t.Errorf("%d packets are lost", lost)
		}
		h.want("behind the lease", h.receive(next+lease), 1)
		before := h.highest
		h.want("numbers", h.send(5), 5)
		if h.highest > before+lease+5 {
			t.Errorf("number %d after %d", h.highest, before)
		}
		next += lease + 1
	}
	h.stop()
}

// TestLedgerHolder: of two programs that start at once, one has the state file and
// the other says so; who was killed has it no longer.
func TestLedgerHolder(t *testing.T) {
	rig.Require(t)
	config, state := write(t, atHome), filepath.Join(t.TempDir(), "state.json")
	for round := range 25 {
		var both [2]*process
		for i := range both {
			name := fmt.Sprintf("%d%d", round, i)
			both[i] = launch(t, config, "--state", state, "--wire", "wire"+name, "--transport", "stack"+name)
		}
		holder, other := both[0], both[1]
		select {
		case <-holder.exited:
			holder, other = other, holder
		case <-other.exited:
		}
		holder.waitLog("msg=ready")
		if code := other.cmd.ProcessState.ExitCode(); code != 2 || !strings.Contains(other.logged(), "in use by another process") {
			t.Fatalf("round %d: the other ended with code %d and said\n%s", round, code, other.logged())
		}
		if round%2 == 0 {
			holder.stop()
			continue
		}
		holder.signal(unix.SIGKILL)
		<-holder.exited
	}
}

// TestLedgerFullDisk: on a full disk no number is used that does not stand there.
// What is dropped is counted, the trouble is said once, and its end, too.
func TestLedgerFullDisk(t *testing.T) {
	rig.Require(t)
	disk := t.TempDir()
	if err := unix.Mount("tapsec", disk, "tmpfs", 0, "size=64k"); err != nil {
		t.Skip("no file system of its own:", err)
	}
	t.Cleanup(func() { _ = unix.Unmount(disk, unix.MNT_DETACH) })
	state, ballast := filepath.Join(disk, "state.json"), filepath.Join(disk, "ballast")
	h := newHome(t, "--state", state)
	h.want("at first", h.receive(1), 1)
	h.want("at first", h.send(1), 1)
	number := uint64(1)
	exhaust := func() { // what room the file has itself: each jump needs a lease of its own
		t.Helper()
		fill(t, ballast)
		for range 200 {
			if number += 100_000; h.receive(number) == 0 {
				return
			}
		}
		t.Fatal("a full disk has room for 200 leases")
	}
	exhaust()
	h.waitLog("the state file cannot be written")
	if sent := h.send(200); sent > lease {
		t.Errorf("%d packets were sent without a lease", sent)
	}
	h.want("without a lease", h.receive(number+1), 0)
	h.die() // which loses nothing that stands on the disk
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}

	h.live(t, "--state", state)
	h.want("replay", h.receive(1, number-100_000), 0)
	h.want("new ones", h.receive(numbers(number+1000, number+1010)...), 11)
	h.want("new ones", h.send(10), 10)
	number += 1010
	exhaust()
	h.waitLog("the state file cannot be written")
	h.send(200)
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	if said := h.waitLog("the state file can be written again"); strings.Contains(said, "cannot be written:") {
		t.Errorf("said more than once:\n%s", said)
	}
	h.want("afterwards", h.receive(number), 1) // it was lost, and not taken
	h.want("afterwards", h.send(10), 10)
	if text := h.stop(); !strings.Contains(text, "no-lease") || !strings.Contains(text, "beyond those in the state file") {
		t.Errorf("what was dropped is not in the summary:\n%s", text)
	}
}

// fill leaves no room on a disk.
func fill(t *testing.T, ballast string) {
	t.Helper()
	f, err := os.Create(ballast)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for range 1 << 20 {
		if _, err := f.Write(make([]byte, 512)); err != nil {
			return
		}
	}
	t.Fatal("the disk does not fill")
}

// TestLedgerUnreadable: a state file that cannot be used ends the start with a
// sentence, and stays as it is.
func TestLedgerUnreadable(t *testing.T) {
	rig.Require(t)
	config := write(t, atHome)
	for name, text := range map[string]string{
		"empty":         "",
		"a key file":    atHome,
		"a newer one":   `{"ledger":7,"boot":""}` + "\n",
		"killed before": `{"version": 1, "saved": "2026-01-02T03:04:05Z", "clean": false, "sas": null}`,
	} {
		state := write(t, text)
		p := launch(t, config, "--transport", "stack0", "--state", state)
		p.end(2)
		if said := p.logged(); !strings.Contains(said, state) || !strings.Contains(said, "remove it") {
			t.Errorf("%s: said %s", name, said)
		}
		if after, err := os.ReadFile(state); err != nil || string(after) != text {
			t.Errorf("%s: the file is now %q, %v", name, after, err)
		}
	}
	p := launch(t, config, "--transport", "stack0", "--state", filepath.Join(t.TempDir(), "none", "state"))
	p.end(2)
	if said := p.logged(); !strings.Contains(said, "no such file or directory") {
		t.Errorf("said %s", said)
	}
}

// TestForgetful: a program that seals under a counter-mode key without a state
// file says once what that means (RFC 4106 section 3.1).
func TestForgetful(t *testing.T) {
	rig.Require(t)
	path := write(t, atHome)
	for want, flags := range map[int][]string{1: nil, 0: {"--state", filepath.Join(t.TempDir(), "state")}} {
		p := launch(t, path, append(flags, "--transport", "stack0")...)
		said := p.waitLog("msg=ready")
		p.signal(unix.SIGHUP)
		said += p.waitLog("msg=reloaded")
		p.stop()
		if n := strings.Count(said, "(--state)"); n != want || n == 1 && !strings.Contains(said, "sas=to-peer") {
			t.Errorf("said %d times, want %d:\n%s", n, want, said)
		}
	}
}
