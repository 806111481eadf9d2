package linux

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"tapsec/internal/lab/forge"
	"tapsec/internal/lab/rig"
	"tapsec/internal/netns"
	"tapsec/keys"
	"tapsec/sa"
	"tapsec/test/interop"
	"tapsec/test/program"
	"tapsec/test/testkit"
)

// TestKernelOpens has `send` seal datagrams for a kernel. Its SAs are what `keys
// --to xfrm` writes, and its policies take nothing in the clear. Each flow has four
// good datagrams, then a damaged one and the first one again: the good ones
// must arrive byte for byte, and the kernel's own counters must say so, and name
// what it did not take.
func TestKernelOpens(t *testing.T) {
	interop.Require(t, "linux.uml", "ip")
	rig.Require(t)
	out := t.TempDir()
	all := flowsToKernel()
	var batch strings.Builder
	for _, s := range []session{plain, esn} {
		batch.WriteString(commands(t, writeConfig(t, out, s.name, s.of(all))))
	}
	for _, f := range all {
		batch.WriteString(f.policy())
	}
	if err := os.WriteFile(filepath.Join(out, "batch"), []byte(batch.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	w := newWires(t)
	uml := boot(t, "accept.py", out, wired("far1"))
	uml.Await("ready", 1)
	for _, s := range []session{plain, esn} {
		w.session(uml, filepath.Join(out, s.name+".yaml"), s.first, s.of(all))
	}
	w.mark("end")
	uml.Await("reported", 1)
	uml.Join()

	m := newMatrix()
	m.version = strings.Fields(read(t, out, "kernel.txt"))[1]
	received, counted := received(t, out), counters(t, out)
	for i, f := range all {
		t.Run(f.title(), func(t *testing.T) {
			f.check(t, i, received[f.dst], counted)
			m.of(f.group).refused++
			for range sizes {
				m.add(f.group, t)
			}
		})
	}
	checkErrors(t, read(t, out, "errors"), len(all))
	interop.Record(t, "linux-opens", m.finished(interop.TapsecSeals))
}

// sizes of the payloads of a flow's good datagrams, behind their mark.
var sizes = [...]int{0, 13, 100, 1200}

// session is a run of `send`.
type session struct {
	name  string
	first uint64 // number of each SA
}

var plain, esn = session{"plain", 1}, session{"esn", 0xfffffffe}

// of gives the session's flows.
func (s session) of(all []*toKernel) (some []*toKernel) {
	for _, f := range all {
		if f.session == s {
			some = append(some, f)
		}
	}
	return some
}

// writeConfig writes what `send` reads.
func writeConfig(t *testing.T, dir, name string, flows []*toKernel) string {
	t.Helper()
	var sas []*sa.SA
	for _, f := range flows {
		sas = append(sas, f.sas...)
	}
	var b bytes.Buffer
	b.WriteString("local: [192.0.2.99]\n")
	if err := keys.WriteYAML(&b, sas); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, name+".yaml")
	if err := os.WriteFile(path, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// commands is what `tapsec keys` makes of a configuration, for ip -batch.
func commands(t *testing.T, config string) string {
	t.Helper()
	text, err := program.Command("keys", "--to", "xfrm", config).Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.ReplaceAll("\n"+string(text), "\nip ", "\n")
}

// wires are two cables: from `send`, where the test takes what it sealed, and to
// the guest, where the test puts what it is to get.
type wires struct {
	t               *testing.T
	sealed, toGuest *rig.Socket
}

func newWires(t *testing.T) *wires {
	t.Helper()
	for _, n := range []string{"0", "1"} {
		near, far := "near"+n, "far"+n
		if said, err := exec.Command("ip", "link", "add", near, "mtu", fmt.Sprint(mtu), "type", "veth", "peer", far, "mtu", fmt.Sprint(mtu)).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, said)
		}
		t.Cleanup(func() {
			if err := netns.Delete(near); err != nil {
				t.Error(err)
			}
		})
		if err := errors.Join(netns.Up(near), netns.Up(far), netns.Ready(near, far)); err != nil {
			t.Fatal(err)
		}
	}
	w := &wires{t: t, sealed: testkit.Listen(t, "far0"), toGuest: testkit.Listen(t, "near1")}
	return w
}

// session seals some flows and gives them to the guest.
func (w *wires) session(uml guest, config string, first uint64, flows []*toKernel) {
	w.t.Helper()
	p := program.Start(w.t, "send", "-c", config, "--stack", "stack0", "--out", "near0", "--first", fmt.Sprint(first))
	if err := netns.Ready("stack0"); err != nil {
		w.t.Fatal(err)
	}
	stack := testkit.Listen(w.t, "stack0")
	defer stack.Close()
	for _, f := range flows {
		var sealed [][]byte
		for n := range len(sizes) + 1 {
			sealed = append(sealed, w.seal(stack, f.datagram(n)))
		}
		damage(sealed[len(sizes)])
		for _, frame := range append(sealed, sealed[0]) {
			w.give(frame)
		}
		w.mark(string(binary.BigEndian.AppendUint16(nil, uint16(f.number))))
		uml.Await(fmt.Sprintf("flow %d.", f.number), 1)
	}
	p.Stop()
}

// damage exchanges the last two words of a frame that differ: of an ICV, or of what
// an AH covers. No checksum changes by that.
func damage(frame []byte) {
	last, word := frame[len(frame)-2:], frame[len(frame)-4:]
	for bytes.Equal(word[:2], last) {
		word = frame[len(frame)-len(word)-2:]
	}
	word[0], word[1], last[0], last[1] = last[0], last[1], word[0], word[1]
}

// seal has `send` seal a packet.
func (w *wires) seal(stack *rig.Socket, packet []byte) []byte {
	w.t.Helper()
	frame := forge.AppendFrame(nil, packet)
	if err := stack.Send(frame); err != nil {
		w.t.Fatal(err)
	}
	for deadline := time.Now().Add(program.Patience); ; {
		got, err := w.sealed.Receive(time.Until(deadline))
		if err != nil {
			w.t.Fatal(err)
		}
		if bytes.HasPrefix(got, frame[:12]) {
			return bytes.Clone(got)
		}
	}
}

func (w *wires) give(frame []byte) {
	w.t.Helper()
	if err := w.toGuest.Send(frame); err != nil {
		w.t.Fatal(err)
	}
}

// mark gives the guest a datagram in the clear.
func (w *wires) mark(text string) {
	w.t.Helper()
	w.give(forge.AppendFrame(nil, forge.UDP(nil, netip.MustParseAddrPort("10.8.255.255:10"), netip.MustParseAddrPort("10.9.0.1:10"), []byte(text))))
}

func read(t *testing.T, dir, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// received gives the payloads that arrived, by the address that they were for.
func received(t *testing.T, dir string) map[netip.Addr][]string {
	t.Helper()
	all := map[netip.Addr][]string{}
	for line := range strings.Lines(read(t, dir, "received")) {
		to, payload, _ := strings.Cut(strings.TrimSpace(line), " ")
		addr, err := netip.ParseAddr(to)
		if err != nil {
			t.Fatal(err)
		}
		all[addr] = append(all[addr], payload)
	}
	return all
}

// counter is what the kernel says of an SA.
type counter struct{ packets, replays, failed string }

var (
	stateSPI = regexp.MustCompile(`\n\tproto (\S+) spi (0x[0-9a-f]{8})`)
	packets  = regexp.MustCompile(`lifetime current:\n\s+\d+\(bytes\), (\d+)\(packets\)`)
	stats    = regexp.MustCompile(`replay-window \d+ replay (\d+) failed (\d+)`)
)

// counters reads `ip -s xfrm state`, by protocol and SPI.
func counters(t *testing.T, dir string) map[string]counter {
	t.Helper()
	all := map[string]counter{}
	for _, block := range strings.Split(read(t, dir, "states"), "\nsrc ") {
		id, n, s := stateSPI.FindStringSubmatch(block), packets.FindStringSubmatch(block), stats.FindStringSubmatch(block)
		if id == nil || n == nil || s == nil {
			t.Fatalf("a state cannot be read:\n%s", block)
		}
		all[id[1]+" "+id[2]] = counter{n[1], s[1], s[2]}
	}
	return all
}

// check holds what the kernel did with flow number i against what was sent.
func (f *toKernel) check(t *testing.T, i int, arrived []string, counted map[string]counter) {
	t.Helper()
	for n := range sizes {
		if want := hex.EncodeToString(f.payload(n)); n >= len(arrived) || arrived[n] != want {
			t.Errorf("datagram %d did not arrive, but %.100q", n+1, arrived)
		}
	}
	if len(arrived) > len(sizes) {
		t.Errorf("%d datagrams arrived", len(arrived))
	}
	for layer, s := range f.sas {
		want := counter{fmt.Sprint(len(sizes)), "0", "0"}
		if layer == len(f.sas)-1 { // the outermost met the damaged one and the replay
			want.replays, want.failed = "1", "1"
		}
		if got := counted[fmt.Sprintf("%s 0x%08x", s.Protocol, s.SPI)]; got != want {
			t.Errorf("%s %s of %s: %+v, want %+v", s.Mode, s.Protocol, s.Suite.Name, got, want)
		}
	}
}

// checkErrors holds /proc/net/xfrm_stat against what was wrong: of each flow one ICV
// and one number.
func checkErrors(t *testing.T, text string, flows int) {
	t.Helper()
	for line := range strings.Lines(text) {
		var name string
		var n, want int
		if _, err := fmt.Sscan(line, &name, &n); err != nil {
			t.Fatal(err)
		}
		if name == "XfrmInStateProtoError" || name == "XfrmInStateSeqError" {
			want = flows
		}
		if n != want {
			t.Errorf("%s is %d, want %d", name, n, want)
		}
	}
}
