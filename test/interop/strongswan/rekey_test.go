package strongswan

import (
	"fmt"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"tapsec/rig"
	"tapsec/sa"
	"tapsec/test/interop"
)

// lab is two hosts with a daemon each, tapsec between them, and a journal.
//
//	a: stack, ipsec0, charon --- wire TAP | tapsec | host TAP --- b: charon, ipsec0, stack
//
// Every frame between the two goes through tapsec. From b to a they pass
// untouched. From a to b tapsec has the keys that b's daemon logs. A frame opened
// in place would be of no use to b's daemon, which expects to open it itself; so
// the form is decap: b's stack gets the inner packet straight from the NIC, and
// answers through its daemon. What tapsec has no key for reaches b as it was, and
// there b's daemon opens it. Hence all traffic arrives, also while new keys are
// on their way. That the form in place opens the same frames to the same packets
// is checked on what was heard on the wire.
type lab struct {
	a, b    *charon
	nic     *process
	journal *journal
}

func newLab(t *testing.T) *lab {
	t.Helper()
	a, b := newHost(t, "a", "wire0", 1), newHost(t, "b", "host0", 2)
	l := &lab{b: startCharon(t, b, a)}
	l.nic = launch(t, nil, exec.Command(program, "run", "-k", l.b.log(), "--form", "decap",
		"--wire", a.link, "--wire-netns", a.name, "--host", b.link, "--host-netns", b.name))
	await(t, "tapsec", func() bool { return l.nic.times("msg=ready") > 0 })
	l.a = startCharon(t, a, b)
	for _, port := range ports {
		server := launch(t, b.ns, exec.Command("iperf3", "--server", "--port", port, "--forceflush"))
		await(t, "iperf3 --server", func() bool { return server.times("Server listening") > 0 })
	}
	l.journal = listen(t, a, b)
	return l
}

var ports = []string{"5201", "5202"}

// TestRekey has each suite carry pings of both IP versions, and some of them bulk
// transfers, before, during and after a rekey that either side begins. Tapsec takes
// the new keys when it is told, beside traffic.
func TestRekey(t *testing.T) {
	rig.Require(t)
	interop.Require(t, daemon, "swanctl", "unshare", "ip", "ping", "iperf3")
	l := newLab(t)
	version := charonVersion(t)
	var lines []interop.Line
	for i, suite := range suites() {
		for _, v := range versions {
			if !t.Run(fmt.Sprintf("%s/%s", suite, v), func(t *testing.T) { l.life(t, v, suite, i%2 == 0) }) {
				t.FailNow() // its child SA may be in the others' way
			}
		}
		lines = append(lines, line(version, suite))
	}
	l.end(t)
	if !t.Failed() {
		interop.Record(t, "strongswan", lines)
	}
}

func line(charon, suite string) interop.Line {
	l := interop.Line{Peer: "strongSwan", Version: charon, What: "ESP " + suite + ", tunnel in UDP, over IPv4 and IPv6",
		Way: interop.PeerSeals, Frames: "ping, rekey, ping", Said: interop.Agrees}
	if bulk(suite) {
		l.Frames = "ping, iperf3, rekey, ping, iperf3"
	}
	return l
}

// life is that of a child SA.
//
//  1. It comes up. Frames pass tapsec, which knows no key yet.
//  2. Tapsec reads the log anew; frames are opened.
//  3. One side rekeys. Frames of the new SA pass until tapsec has read the log.
//  4. The record is checked, and the child goes.
func (l *lab) life(t *testing.T, v version, suite string, byB bool) {
	l.a.ctl(t, "--initiate", "--ike", v.String(), "--child", suite)
	l.ping(t, v)
	l.reload(t)
	l.ping(t, v)
	wait := func() {}
	if bulk(suite) {
		wait = l.iperf(t, v, 0, "--bytes", "4M", "--bitrate", "40M")
	}
	l.rekey(t, v, suite, byB)
	both := l.b.inbound(t, v)
	both = both[len(both)-2:]
	await(t, "a frame of the new SA", func() bool { l.ping(t, v); return l.journal.saw(both[1].SPI) })
	l.reload(t)
	l.ping(t, v)
	if bulk(suite) {
		l.iperf(t, v, 1, "--udp", "--length", "1200", "--bytes", "300K", "--bitrate", "40M")()
	}
	wait()
	for _, h := range []*host{l.a.host, l.b.host} {
		await(t, "the end of all connections", func() bool {
			return h.run(t, "ss", "-Htan", "exclude", "listening", "exclude", "time-wait") == ""
		})
	}
	record := l.journal.settle(t)
	for _, s := range both { // a child has but one proposal
		if want, _ := sa.ParseSuite(sa.ESP, suite); s.Suite != want {
			t.Errorf("charon and tapsec agree on %s, want %s", s.Suite.Name, suite)
		}
	}
	for spi, s := range check(t, record, both) {
		if bulk(suite) && s.full == 0 {
			t.Errorf("SPI %08x: no long packet was opened", spi)
		}
	}
	l.a.ctl(t, "--terminate", "--ike", v.String(), "--child", suite)
}

// ping goes on until three short and three long packets are answered.
func (l *lab) ping(t *testing.T, v version) {
	t.Helper()
	for i, size := range []string{"16", "1237"} {
		to, from := l.b.host.inner(v)[i], l.a.host.inner(v)[i]
		l.a.host.run(t, "ping", "-n", "-q", "-c", "3", "-i", "0.01", "-w", "30", "-s", size, "-p", "7461707365630a", "-I", from.String(), to.String())
	}
}

// iperf begins a transfer from a to b, and returns what waits for its end.
func (l *lab) iperf(t *testing.T, v version, n int, args ...string) (wait func()) {
	t.Helper()
	from, to := l.a.host.inner(v)[n], l.b.host.inner(v)[n]
	p := launch(t, l.a.host.ns, exec.Command("iperf3", append(args, "--client", to.String(), "--bind", from.String(), "--port", ports[n])...))
	return p.wait
}

func (l *lab) rekey(t *testing.T, v version, suite string, byB bool) {
	t.Helper()
	const made = "inbound CHILD_SA"
	before := l.b.says(t, made)
	if byB {
		l.b.ctl(t, "--rekey", "--ike", v.String(), "--child", "all")
	} else {
		l.a.ctl(t, "--rekey", "--ike", v.String(), "--child", suite)
	}
	await(t, "the rekey", func() bool { return l.b.says(t, made) > before })
}

// reload has tapsec read the log again.
func (l *lab) reload(t *testing.T) {
	t.Helper()
	const done = "msg=reloaded"
	before := l.nic.times(done)
	if err := l.nic.cmd.Process.Signal(unix.SIGHUP); err != nil {
		t.Fatal(err)
	}
	await(t, "the reload", func() bool { return l.nic.times(done) > before })
}

// end stops tapsec, whose own account must be without loss and failure: to each
// direction a line of which "frames in" equals "frames out" and the rest is 0.
func (l *lab) end(t *testing.T) {
	t.Helper()
	l.nic.stop()
	account := regexp.MustCompile(`(?m)^(wire0 to host0|host0 to wire0) +(\d+) +\d+ +(\d+) +\d+((?: +\d+)+)$`)
	found := account.FindAllStringSubmatch(l.nic.text(), -1)
	lost := func(m []string) bool { return m[2] == "0" || m[2] != m[3] || strings.Trim(m[4], " 0") != "" }
	if len(found) != 2 || slices.ContainsFunc(found, lost) {
		t.Errorf("frames were lost:\n%s", l.nic.text())
	}
	if strings.Contains(l.nic.text(), "AUTH_FAILED") {
		t.Errorf("frames failed:\n%s", l.nic.text())
	}
}
