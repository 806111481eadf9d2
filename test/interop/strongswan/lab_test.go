package strongswan

import (
	"fmt"
	"os/exec"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"tapsec/test/interop"
	"tapsec/test/program"
)

// lab is two hosts with a daemon each, and tapsec between them.
//
//	a: stack, ipsec0, charon --- wire TAP | tapsec | host TAP --- b: charon, ipsec0, stack
//
// Every frame between the two goes through tapsec, which has the keys that b's
// daemon logs.
type lab struct {
	a, b *charon
	nic  *program.Process
}

// newLab starts all, tapsec with further flags.
func newLab(t *testing.T, flags ...string) *lab {
	t.Helper()
	a, b := newHost(t, "a", "wire0", 1), newHost(t, "b", "host0", 2)
	l := &lab{b: startCharon(t, b, a)}
	l.nic = program.Launch(t, nil, program.Command(append([]string{"run", "-k", l.b.log(),
		"--wire", a.link, "--wire-netns", a.name, "--host-netns", b.name}, flags...)...))
	program.Await(t, "tapsec", func() bool { return l.nic.Times("msg=ready") > 0 })
	l.a = startCharon(t, a, b)
	for _, port := range ports {
		server := program.Launch(t, b.ns, exec.Command("iperf3", "--server", "--port", port, "--forceflush"))
		program.Await(t, "iperf3 --server", func() bool { return server.Times("Server listening") > 0 })
	}
	return l
}

var ports = []string{"5201", "5202"}

// every runs a test for each suite and version of the outer packets, and records
// a line for each suite.
func every(t *testing.T, file string, way interop.Way, frames string, life func(t *testing.T, v version, suite string, byB bool)) {
	charon := charonVersion(t)
	var lines []interop.Line
	for i, suite := range suites() {
		for _, v := range versions {
			if !t.Run(fmt.Sprintf("%s/%s", suite, v), func(t *testing.T) { life(t, v, suite, i%2 == 0) }) {
				t.FailNow() // its child SA may be in the others' way
			}
		}
		l := interop.Line{Peer: "strongSwan", Version: charon, What: "ESP " + suite + ", tunnel in UDP, over IPv4 and IPv6",
			Way: way, Frames: frames, Said: interop.Agrees}
		if bulk(suite) {
			l.Frames = strings.ReplaceAll(frames, "ping", "ping, iperf3")
		}
		lines = append(lines, l)
	}
	interop.Record(t, file, lines)
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
	p := program.Launch(t, l.a.host.ns, exec.Command("iperf3", append(args, "--client", to.String(), "--bind", from.String(), "--port", ports[n])...))
	return p.Join
}

// rekey has one side begin a rekey, and waits until both have the new SAs: what is
// sealed for a host that has not is lost.
func (l *lab) rekey(t *testing.T, v version, suite string, byB bool) {
	t.Helper()
	made := func() [2]int { return [2]int{l.a.says(t, "inbound CHILD_SA"), l.b.says(t, "inbound CHILD_SA")} }
	before := made()
	if byB {
		l.b.ctl(t, "--rekey", "--ike", v.String(), "--child", "all")
	} else {
		l.a.ctl(t, "--rekey", "--ike", v.String(), "--child", suite)
	}
	program.Await(t, "the rekey", func() bool { now := made(); return now[0] > before[0] && now[1] > before[1] })
}

// followed waits until tapsec has taken the latest SA from the log, with no signal.
func (l *lab) followed(t *testing.T, v version) {
	t.Helper()
	in := l.b.inbound(t, v)
	name := in[len(in)-1].Name
	program.Await(t, name, func() bool { return l.nic.Times(name) > 0 })
}

// reload has tapsec read the log again.
func (l *lab) reload(t *testing.T) {
	t.Helper()
	const done = "msg=reloaded"
	before := l.nic.Times(done)
	if err := l.nic.Process.Signal(unix.SIGHUP); err != nil {
		t.Fatal(err)
	}
	program.Await(t, "the reload", func() bool { return l.nic.Times(done) > before })
}

// taken waits until tapsec has the two latest SAs of the log: it may have read one direction's before the
// daemon had written the other's.
func (l *lab) taken(t *testing.T) {
	t.Helper()
	all := l.b.sas(t)
	for _, s := range all[len(all)-2:] {
		program.Await(t, s.Name, func() bool { return l.nic.Times(s.Name) > 0 })
	}
}

// quiet waits for the end of all connections, so that nothing more is sent.
func (l *lab) quiet(t *testing.T) {
	t.Helper()
	for _, h := range []*host{l.a.host, l.b.host} {
		program.Await(t, "the end of all connections", func() bool {
			return h.run(t, "ss", "-Htan", "exclude", "listening", "exclude", "time-wait") == ""
		})
	}
}
