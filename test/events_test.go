package test

import (
	"context"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"tapsec/control"
	"tapsec/internal/event"
	"tapsec/internal/lab/rig"
	"tapsec/sa"
	"tapsec/test/program"
)

// follower follows the events of a running appliance.
type follower struct {
	t    *testing.T
	mu   sync.Mutex
	seen []control.Event
}

func follow(t *testing.T, c *control.Client) *follower {
	f := &follower{t: t}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for e, err := range c.Follow(ctx, event.Kept) {
			if err != nil {
				return
			}
			f.mu.Lock()
			f.seen = append(f.seen, e)
			f.mu.Unlock()
		}
	}()
	t.Cleanup(func() { cancel(); <-ended })
	return f
}

// await waits for an event with these fields, names and values in turn.
func (f *follower) await(name string, fields ...string) control.Event {
	f.t.Helper()
	var found control.Event
	program.Await(f.t, "event "+name+" "+strings.Join(fields, " "), func() bool {
		f.mu.Lock()
		defer f.mu.Unlock()
		for _, e := range f.seen {
			ok := e.Event == name
			for i := 0; i < len(fields); i += 2 {
				ok = ok && fmt.Sprint(e.Fields[fields[i]]) == fields[i+1]
			}
			if ok {
				found = e
				return true
			}
		}
		return false
	})
	return found
}

// names are those of the events that came.
func (f *follower) names() map[string]bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	all := map[string]bool{}
	for _, e := range f.seen {
		all[e.Event] = true
	}
	return all
}

// eventful are SAs that have something happen to them.
const eventful = `
local: [198.51.100.10]
sas:
  - {name: short, spi: 0xe001, dst: 198.51.100.10, protocol: esp, mode: transport, suite: aes128gcm16,
     encryption_key: 0x101112131415161718191a1b1c1d1e1fb1b2b3b4, lifetimes: {soft: {packets: 1}, hard: {packets: 2}}}
  - {name: wide, spi: 0xe002, dst: 198.51.100.10, protocol: esp, mode: transport, suite: aes128gcm16, esn: true,
     encryption_key: 0x202122232425262728292a2b2c2d2e2fb1b2b3b4}
  - {name: last, spi: 0xe003, dst: 203.0.113.9, protocol: esp, direction: out, mode: transport, suite: aes128gcm16,
     encryption_key: 0x303132333435363738393a3b3c3d3e3fb1b2b3b4, oseq: 0xfffffffe}
`

// TestEvents has each event happen but those of a full NIC, and finds it in the stream
// and, by the same name, in the log; also who captures (contract, What is logged).
func TestEvents(t *testing.T) {
	rig.Require(t)
	socket, file := filepath.Join(sockets(t), "nic"), write(t, eventful)
	p := launch(t, file, "--wire", "ev0", "--transport", "evs0", "--control", socket)
	said := p.waitLog("msg=ready")
	client, err := control.Dial(socket)
	if err != nil {
		t.Fatal(err)
	}
	f := follow(t, client)
	f.await("engine")
	wire, stack := listen(t, "ev0"), listen(t, "evs0")
	sas := sasOf(t, eventful)

	short := sealer(t, sas["short"])
	for n := range uint64(3) {
		wire.send(framed(sealed(t, short, plain(server, n, 100))))
	}
	f.await("sa-soft-expired", "sa", "short", "spi", "0x0000e001", "reason", "transport/soft-expired")
	f.await("sa-expired", "sa", "short")

	wide := sealer(t, with(sas["wide"], func(s *sa.SA) { s.SeqHigh = 2 }))
	for n := range uint64(33) {
		wire.send(framed(sealed(t, wide, plain(server, n, 100))))
	}
	f.await("sa-failed", "sa", "wide", "reason", "transport/icv")
	f.await("sa-resynchronised", "sa", "wide")
	program.Await(t, "a storm", func() bool {
		for n := range uint64(100) {
			wire.send(spoiled(framed(sealed(t, wide, plain(server, n, 100)))))
		}
		return f.names()["storm-began"]
	})
	f.await("storm-began", "sa", "wide")

	for n := range uint64(3) {
		stack.send(framed(plain("203.0.113.9:9", n, 100)))
	}
	f.await("sa-numbers-used", "sa", "last")

	off, on := false, true
	if err := client.Switch(control.Switches{ESP: &off}); err != nil {
		t.Fatal(err)
	}
	f.await("offload-switched", "active", "true", "esp", "false")
	if err := client.Switch(control.Switches{ESP: &on}); err != nil {
		t.Fatal(err)
	}
	a := &asker{t: t, socket: socket}
	a.ask(0, strings.Replace(cliEntry, "a name that is much longer than its column", "more", 1), "sa", "add", "-")
	f.await("sa-added", "sas", "more")
	a.ask(0, "", "sa", "delete", "more")
	f.await("sa-deleted", "sas", "more")
	rewrite(t, file, strings.Replace(eventful, "name: short, spi: 0xe001", "name: other, spi: 0xe004", 1))
	p.signal(unix.SIGHUP)
	f.await("reloaded", "went", "short", "came", "other")
	f.await("sa-deleted", "sas", "short")
	f.await("sa-added", "sas", "other")

	for _, state := range []string{"down", "up"} {
		if text, err := exec.Command("ip", "link", "set", "ev0", state).CombinedOutput(); err != nil {
			t.Fatalf("%s, %v", text, err)
		}
		f.await("interface-"+state, "interface", "ev0")
	}
	for _, command := range [][]string{{"capture", "-w", "-"}, {"trace"}} {
		w := watch(t, socket, command...)
		fields := []string{"stream", command[0], "uid", fmt.Sprint(os.Geteuid()), "pid", fmt.Sprint(w.cmd.Process.Pid)}
		f.await("capture-began", fields...)
		w.stop()
		f.await("capture-ended", fields...)
	}
	f.await("storm-ended")
	want := map[string]bool{}
	for _, k := range event.Kinds() {
		want[k.String()] = k != event.Lost && k != event.SADeleteRequested // TestDeleteRequested
	}
	maps.DeleteFunc(want, func(_ string, here bool) bool { return !here })
	if got := f.names(); !maps.Equal(got, want) {
		t.Errorf("got %q, expected %q", slices.Sorted(maps.Keys(got)), slices.Sorted(maps.Keys(want)))
	}
	said += p.waitLog("msg=storm-ended")
	for name := range want {
		if !strings.Contains(said, "msg="+name+" ") {
			t.Errorf("the log has no line %s", name)
		}
	}
	f.commands(a)
}

// commands compares what the commands say with what was followed.
func (f *follower) commands(a *asker) {
	text := a.ask(0, "", "events", "--last", "1000")
	lines := strings.Count(a.ask(0, "", "events", "--json"), "\n")
	f.mu.Lock()
	defer f.mu.Unlock()
	if lines != len(f.seen) {
		f.t.Errorf("%d lines of %d events:\n%s", lines, len(f.seen), text)
	}
	for _, want := range []string{" sa-failed sa=wide reason=transport/icv frames=", " interface-down interface=ev0\n", ` reloaded wire=ev0 stack=evs0 sas=`} {
		if !strings.Contains(text, want) {
			f.t.Errorf("no %q in\n%s", want, text)
		}
	}
	a.ask(2, "", "events", "--last", "1025")
}

// TestFollowCommand: the command goes on until the appliance ends, and then does, too.
func TestFollowCommand(t *testing.T) {
	rig.Require(t)
	socket := filepath.Join(sockets(t), "nic")
	p := start(t, write(t, "{}\n"), "--wire", "ev1", "--host", "evh1", "--control", socket)
	follower := program.Launch(t, nil, program.Command("events", "-f", "--control", socket))
	follower.Await(" engine is=", 1)
	a := &asker{t: t, socket: socket}
	a.ask(0, "", "offload", "off", "ah")
	follower.Await(" offload-switched active=true ah=false esp=true", 1)
	other := program.Launch(t, nil, program.Command("events", "-f", "--control", socket))
	other.Await(" engine is=", 1)
	other.Stop() // SIGTERM is no failure
	p.stop()
	follower.Join()
}

// TestDeleteRequested: a NIC that is full asks for SAs to be deleted. A transport in
// the same process answers; without one the NIC says that it asks. Failures are told of
// in either case.
func TestDeleteRequested(t *testing.T) {
	rig.Require(t)
	config := "sa_capacity: 1\nlocal: [198.51.100.10]\n" + moreOnly
	web := sasOf(t, moreOnly)["web"]
	for _, flags := range [][]string{{"--wire", "ev2", "--transport", "evs2"}, {"--wire", "ev3", "--host", "evh3"}} {
		socket := filepath.Join(sockets(t), "nic")
		start(t, write(t, config), append(flags, "--control", socket)...)
		client, err := control.Dial(socket)
		if err != nil {
			t.Fatal(err)
		}
		f := follow(t, client)
		wire, s := listen(t, flags[1]), sealer(t, web)
		wire.send(spoiled(framed(sealed(t, s, plain(server, 1, 100)))))
		reason := "transport/icv"
		if flags[2] == "--host" {
			reason = "nic/esp-icv"
		}
		f.await("sa-failed", "sa", "web", "reason", reason, "frames", "1")
		f.await("sa-delete-requested", "sa", "web")
	}
}

const moreOnly = `
sas:
  - {name: web, spi: 0xc002, dst: 198.51.100.10, protocol: esp, mode: transport, suite: aes128gcm16,
     encryption_key: 0x101112131415161718191a1b1c1d1e1fb1b2b3b4}
`
