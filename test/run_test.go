package test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"tapsec/internal/lab/forge"
	"tapsec/internal/lab/rig"
	"tapsec/internal/netns"
	"tapsec/internal/outbound"
	"tapsec/internal/wrap"
	"tapsec/status"
	"tapsec/tap"
	"tapsec/test/program"
	"tapsec/test/testkit"
)

// TestVerdicts sends a frame of each kind through a running appliance: contract
// rows 1, 2, 5, 6, 8, 10, 11 and 13.
func TestVerdicts(t *testing.T) {
	rig.Require(t)
	p := start(t, write(t, moreSAs))
	wire, host := listen(t, "wire0"), listen(t, "host0")
	m := newMixer(t)
	for kind := range kinds {
		for _, size := range []int{8, 256, 1372} {
			s := m.sample(kind, size)
			wire.send(s.frame)
			host.check(s)
		}
	}
	p.stop()
}

// TestInactive: contract row 3, receive offload not activated.
func TestInactive(t *testing.T) {
	rig.Require(t)
	start(t, write(t, moreSAs), "--inactive")
	wire, host := listen(t, "wire0"), listen(t, "host0")
	s := newMixer(t).sample(2, 100)
	s.word, s.reason, s.payload = 0, status.OffloadInactive, nil
	wire.send(s.frame)
	host.check(s)
}

// TestPlainHost delivers to a host that knows nothing of trailers.
func TestPlainHost(t *testing.T) {
	rig.Require(t)
	start(t, write(t, moreSAs), "--form", "decap", "--annotate", "none", "--wire", "w7", "--host", "h7")
	wire, host := listen(t, "w7"), listen(t, "h7")
	packet := plain(server, 1, 500)
	sas := sasOf(t, moreSAs)
	wire.send(framed(sealed(t, sealer(t, sas["web"], sas["site"]), packet)))
	if got := host.next(); !bytes.Equal(got, framed(packet)) {
		t.Errorf("got\n%x, want\n%x", got, framed(packet))
	}
}

// TestHostToWire: bytes from the host pass untouched, whatever they are.
func TestHostToWire(t *testing.T) {
	rig.Require(t)
	p := start(t, write(t, moreSAs))
	wire, host := listen(t, "wire0"), listen(t, "host0")
	s := newMixer(t).sample(2, 800)
	tagged := forge.AppendFrame(nil, plain(server, 1, 100), 0x81000064)
	var want [][]byte
	want = append(want, ours[:12:12], s.frame, tagged, spoiled(bytes.Clone(s.frame)))
	want[0] = append(want[0], 0x88, 0xb5) // a frame of nothing
	for size := 15; size <= 1514; size += 37 {
		frame := append(ours[:12:12], 0x88, 0xb5)
		for len(frame) < size {
			frame = append(frame, byte(size))
		}
		want = append(want, frame)
	}
	for i, frame := range want {
		host.send(frame)
		if got := wire.next(); !bytes.Equal(got, frame) {
			t.Fatalf("frame %d: sent\n%x, received\n%x", i, frame, got)
		}
	}
	p.stop()
}

// TestConservation sends a long mixture, compares every frame, and then the
// summary with what was sent: in = out + host_down, and each reason's count.
func TestConservation(t *testing.T) {
	rig.Require(t)
	const frames, window = 5000, 100
	p := start(t, write(t, moreSAs))
	wire, host := listen(t, "wire0"), listen(t, "host0")
	m := newMixer(t)
	var samples []sample
	var stream [][]byte
	reasons, bytesIn := map[status.Reason]int{}, 0
	for i := range frames {
		s := m.sample(i*7%kinds, 8+i*13%1300)
		samples, stream = append(samples, s), append(stream, s.frame)
		reasons[s.reason]++
		bytesIn += len(s.frame)
	}
	seen := wire.pour(stream, window)
	for i, s := range samples {
		if got := host.check(s); got.Ordinal < uint64(i+1) {
			t.Fatalf("frame %d has ordinal %d", i, got.Ordinal)
		}
		seen.Store(int64(i + 1))
	}
	host.silent(50 * time.Millisecond)
	text := p.stop()
	sum := readSummary(t, text)
	in := func(what string) int { return sum[what][0] }
	if in("frames in") < frames || in("bytes in") < bytesIn || in("frames in") != in("frames out")+in("host_down") {
		t.Errorf("moved %v, sent %d frames with %d bytes", text, frames, bytesIn)
	}
	for line := range strings.Lines(text) {
		if n := utf8.RuneCountInString(strings.TrimSuffix(line, "\n")); n > wrap.Width {
			t.Errorf("%d columns: %s", n, line)
		}
	}
	text = strings.Join(strings.Fields(text), " ") // as it is before lines are broken
	for r, n := range reasons {
		if got := sum[r.Qualified()]; len(got) == 0 || got[0] < n || r.Failed() && got[0] != n {
			t.Errorf("%s: %v, want %d", r, got, n)
		}
		if !strings.Contains(text, r.Sentence()) {
			t.Errorf("the summary lacks %q", r.Sentence())
		}
	}
	for _, line := range []string{"CRYPTO_SUCCESS", "CRYPTO_TRANSPORT_ESP_AUTH_FAILED", "CRYPTO_TUNNEL_ESP_AUTH_FAILED", "wire0", "host0"} {
		if len(sum[line]) == 0 {
			t.Errorf("no line %s in\n%s", line, text)
		}
	}
}

// readSummary finds the lines that are a name and numbers.
func readSummary(t *testing.T, text string) map[string][]int {
	t.Helper()
	lines := map[string][]int{}
	columns := regexp.MustCompile(` {2,}`)
	for line := range strings.Lines(text) {
		var numbers []int
		cells := columns.Split(strings.TrimSpace(line), -1)
		for _, cell := range cells[1:] {
			n, err := strconv.Atoi(cell)
			if err != nil {
				break
			}
			numbers = append(numbers, n)
		}
		lines[cells[0]] = numbers
	}
	return lines
}

const esnSA = `
  - {name: long, spi: 0xe001, dst: 198.51.100.10, protocol: esp, mode: transport, suite: aes256gcm16, esn: true, seq_high: 5,
     encryption_key: 0x000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1fa1a2a3a4}
`

// TestReload rereads the file again and again beside traffic on an ESN SA that
// goes over a wrap: no frame is lost or out of order, none fails, and so the
// mark is kept; the file alone would set it back by 2^32 (contract, ESN).
func TestReload(t *testing.T) {
	rig.Require(t)
	const frames, window, reloads = 4000, 100, 12
	with, without := moreSAs+esnSA, headSA+esnSA
	path := write(t, with)
	p := start(t, path)
	wire, host := listen(t, "wire0"), listen(t, "host0")
	s := sealer(t, sasOf(t, with)["long"])
	const first = 6<<32 - 1000
	s.SetNumber(0, first)
	var stream [][]byte
	for i := range frames {
		stream = append(stream, framed(sealed(t, s, plain(server, uint64(i), 200))))
	}
	seen := wire.pour(stream, window)
	for i := range stream {
		if i%(frames/reloads) == frames/reloads/2 {
			rewrite(t, path, []string{with, without}[i/(frames/reloads)%2])
			p.signal(unix.SIGHUP)
		}
		body, trailer := host.delivered()
		r := trailer.Records[0]
		if trailer.Word != 0x2 || r.Number != first+uint64(i) {
			t.Fatalf("frame %d: word %s, %s, number %#x, want %#x", i, trailer.Word, trailer.Reason, r.Number, uint64(first+i))
		}
		if got := binary.BigEndian.Uint64(body[r.Payload+8:]); got != uint64(i) {
			t.Fatalf("frame %d came in the place of %d", got, i)
		}
		seen.Store(int64(i + 1))
	}
	p.waitLog("msg=reloaded")
	p.stop()
}

// TestReloadChanges: SAs come and go with the file, switches are obeyed, what
// needs a restart is said so.
func TestReloadChanges(t *testing.T) {
	rig.Require(t)
	path := write(t, headSA)
	p := start(t, path)
	wire, host := listen(t, "wire0"), listen(t, "host0")
	m := newMixer(t)
	round := func(kind int, word status.Word, reason status.Reason) {
		t.Helper()
		s := m.sample(kind, 100)
		s.word, s.reason = word, reason
		if reason != status.Verified {
			s.payload = nil
		}
		wire.send(s.frame)
		host.check(s)
	}
	reload := func(text string) string {
		t.Helper()
		rewrite(t, path, text)
		p.signal(unix.SIGHUP)
		return p.waitLog("msg=reloaded")
	}
	round(0, 0, status.NoSA)
	reload(moreSAs)
	round(0, 0x2, status.Verified)
	reload("offload: {esp: false}" + moreSAs)
	round(0, 0, status.ProtocolOff)
	reload("offload: {active: false}" + moreSAs)
	round(0, 0, status.OffloadInactive)
	said := reload("queues: 2\nprofile: ndis-v2\nwire: {name: other0}" + headSA)
	for _, field := range []string{"field=queues", "field=profile", "field=wire"} {
		if !strings.Contains(said, field) {
			t.Errorf("log lacks %s:\n%s", field, said)
		}
	}
	if strings.Contains(said, "field=host") {
		t.Errorf("the host did not change:\n%s", said)
	}
	round(0, 0, status.SADeleted)
	round(1, 0x2, status.Verified)
}

// TestReloadMistake: a wrong file changes nothing, every mistake is logged, and
// no key is.
func TestReloadMistake(t *testing.T) {
	rig.Require(t)
	path := write(t, headSA)
	p := start(t, path)
	wire, host := listen(t, "wire0"), listen(t, "host0")
	m := newMixer(t)
	wrong := strings.NewReplacer("0xc002", "0", "mode: transport", "mode: sideways").Replace(moreSAs)
	for _, text := range []string{wrong, "sas: [", "host: {annotate: none}" + moreSAs, "profile: ixgbe-82599\nsas: []\nx: 1"} {
		rewrite(t, path, text)
		p.signal(unix.SIGHUP)
		said := p.waitLog("reload refused")
		if text == wrong && (!strings.Contains(said, "spi") || !strings.Contains(said, "sideways")) {
			t.Errorf("not every mistake is logged:\n%s", said)
		}
		if strings.Contains(said, "101112131415") {
			t.Errorf("a key is logged:\n%s", said)
		}
		s := m.sample(1, 100)
		wire.send(s.frame)
		host.check(s)
		s = m.sample(0, 100)
		s.word, s.reason, s.payload = 0, status.NoSA, nil
		wire.send(s.frame)
		host.check(s)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	p.signal(unix.SIGHUP)
	p.waitLog("reload refused")
	p.stop()
}

// TestReloadBeyondCapacity: a file whose SAs fit its own capacity, but not the
// running one's, is refused.
func TestReloadBeyondCapacity(t *testing.T) {
	rig.Require(t)
	path := write(t, "sa_capacity: 1"+headSA)
	p := start(t, path)
	rewrite(t, path, "sa_capacity: 2"+moreSAs)
	p.signal(unix.SIGHUP)
	if said := p.waitLog("reload refused"); !strings.Contains(said, "web") || !strings.Contains(said, "restart") {
		t.Errorf("the log does not say which SA has no room:\n%s", said)
	}
}

// TestPreferred: an SA that the NIC has no room for stays with the transport,
// said once at start.
func TestPreferred(t *testing.T) {
	rig.Require(t)
	preferred := strings.Replace(moreSAs, "name: web,", "name: web, offload: preferred,", 1)
	p := launch(t, write(t, "sa_capacity: 1"+preferred))
	if said := p.waitLog("msg=ready"); strings.Count(said, "web stays with the transport") != 1 {
		t.Errorf("want one line on web:\n%s", said)
	}
	wire, host := listen(t, "wire0"), listen(t, "host0")
	s := newMixer(t).sample(0, 100)
	s.word, s.reason, s.payload = 0, status.NoSA, nil
	wire.send(s.frame)
	host.check(s)
	p.stop()
	if said := p.logged(); strings.Contains(said, "transport") {
		t.Errorf("said again:\n%s", said)
	}
}

// TestDeleted: an interface deleted under the appliance ends it with exit code
// 3, one sentence and the summary; the other interface vanishes.
func TestDeleted(t *testing.T) {
	rig.Require(t)
	for _, name := range []string{"wire0", "host0"} {
		p := start(t, write(t, headSA))
		if err := netns.Delete(name); err != nil {
			t.Fatal(err)
		}
		sum := readSummary(t, p.end(3))
		if _, ok := sum["frames in"]; !ok {
			t.Error("no summary")
		}
		if said := p.logged(); strings.Count(said, name+": interface is gone") != 1 {
			t.Errorf("want one sentence on %s:\n%s", name, said)
		}
		absent(t, "wire0", "host0")
	}
}

// absent waits for interfaces to be gone: the kernel may take those of a program that has ended away a moment
// later.
func absent(t *testing.T, names ...string) {
	t.Helper()
	for _, name := range names {
		for deadline := time.Now().Add(patience); ; time.Sleep(2 * time.Millisecond) {
			if _, err := net.InterfaceByName(name); err != nil {
				break
			}
			if time.Now().After(deadline) {
				t.Errorf("%s is still there", name)
				break
			}
		}
	}
}

// TestNamespaces puts the kernel's sides into two named namespaces; they vanish
// from there too.
func TestNamespaces(t *testing.T) {
	rig.Require(t)
	outside, inside := testkit.NewStack(t, "outside"), testkit.NewStack(t, "inside")
	p := start(t, write(t, moreSAs), "--wire-netns", "outside", "--host-netns", "inside", "--host", "wire0")
	absent(t, "wire0")
	wire, host := listenIn(t, "outside", "wire0"), listenIn(t, "inside", "wire0")
	m := newMixer(t)
	for kind := range kinds {
		s := m.sample(kind, 1372)
		wire.send(s.frame)
		host.check(s)
	}
	if sum := readSummary(t, p.stop()); len(sum["wire0"]) != 2 {
		t.Errorf("no drop counters from other namespaces: %v", sum)
	}
	for _, ns := range []*testkit.Stack{outside, inside} {
		ns.Do(func() error {
			absent(t, "wire0")
			return nil
		})
	}
}

// Of a TAP that somebody moves into another namespace the frames flow on, and it is said what is not seen of it any
// more.
func TestTAPMoves(t *testing.T) {
	rig.Require(t)
	addTAP(t, "host0") // no other may be moved
	elsewhere := testkit.NewStack(t, "elsewhere")
	p := start(t, write(t, moreSAs))
	if err := elsewhere.Take("host0"); err != nil {
		t.Fatal(err)
	}
	p.waitLog("host0 has left its network namespace")
	if err := elsewhere.Do(func() error { return errors.Join(netns.Up("host0"), netns.Ready("host0")) }); err != nil {
		t.Fatal(err)
	}
	wire, host := listen(t, "wire0"), listenIn(t, "elsewhere", "host0")
	m := newMixer(t)
	for kind := range kinds {
		s := m.sample(kind, 1372)
		wire.send(s.frame)
		host.check(s)
	}
	if sum := p.stop(); !strings.Contains(sum, "host0 is in another") || strings.Contains(sum, "gone") {
		t.Errorf("the summary says\n%s", sum)
	}
}

// TestNamespaceHeld: a TAP in another namespace keeps that alive when nobody
// else does. If it did not, the TAP could vanish while the namespace ends.
func TestNamespaceHeld(t *testing.T) {
	rig.Require(t)
	held, later := testkit.NewStack(t, "held"), testkit.NewStack(t, "later")
	p := start(t, write(t, headSA), "--host-netns", "held")
	if err := held.Close(); err != nil {
		t.Fatal(err)
	}
	// The kernel ends namespaces in turn: had this one ended, it would be gone when the next one is.
	addTAP(t, "witness0") // opened here, so it holds nothing
	witness, err := tap.Open(tap.Config{Name: "witness0"})
	if err != nil {
		t.Fatal(err)
	}
	defer witness.Close()
	if err := errors.Join(later.Take("witness0"), later.Close()); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		if err := witness.Up(); errors.Is(err, tap.ErrGone) {
			break
		} else if err != nil || time.Now().After(deadline) {
			t.Fatalf("the other namespace does not end: %v", err)
		}
	}
	if sum := readSummary(t, p.stop()); len(sum["host0"]) != 2 {
		t.Errorf("no drop counters of the host: %v", sum)
	}
}

// TestAttach uses interfaces that were there before; they outlive the
// appliance, also where it moved one, and it finds that one again.
func TestAttach(t *testing.T) {
	rig.Require(t)
	home := testkit.NewStack(t, "home")
	for _, name := range []string{"wire0", "host0"} {
		addTAP(t, name)
		if err := netns.Up(name); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() { netns.Delete("wire0") })
	m := newMixer(t)
	for range 2 {
		p := start(t, write(t, moreSAs), "--host-netns", "home")
		wire, host := listen(t, "wire0"), listenIn(t, "home", "host0")
		s := m.sample(2, 300)
		wire.send(s.frame)
		host.check(s)
		p.stop()
		if _, err := net.InterfaceByName("wire0"); err != nil {
			t.Errorf("wire0: %v", err)
		}
		if err := home.Do(func() error { _, err := net.InterfaceByName("host0"); return err }); err != nil {
			t.Errorf("host0: %v", err)
		}
	}
}

// TestAttachedByConfiguration has veths on both sides, and kills the appliance: what it did to the
// interfaces, such as hearing frames to others, goes with it.
func TestAttachedByConfiguration(t *testing.T) {
	rig.Require(t)
	for _, name := range []string{"veth0", "veth1"} {
		if err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: name, MTU: 1700}, PeerName: name + "-far", PeerMTU: 1700}); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { netns.Delete(name) })
		if err := errors.Join(netns.Up(name), netns.Up(name+"-far"), netns.Ready(name, name+"-far")); err != nil {
			t.Fatal(err)
		}
	}
	left := asFound(t, "veth0", "veth0-far", "veth1", "veth1-far")
	for _, end := range []struct {
		engine string
		killed bool
	}{{"ring", true}, {"plain", false}, {"direct", true}, {"direct", false}, {"xdp", true}, {"xdp", false}} {
		engine := end.engine
		if lacking := tap.CanRedirect(); engine == "xdp" && lacking != nil {
			rig.Missing(t, lacking.Error())
		}
		p := launch(t, write(t, "wire: {name: veth0, attach: true}\nhost: {name: veth1, attach: true}\n"+moreSAs), "--engine", engine)
		line := p.waitLog("msg=engine")
		if !strings.Contains(line, "is="+engine) || strings.Contains(line, "ethtool -K veth0-far tx off") != (engine == "xdp") {
			t.Errorf("%s: %s", engine, line)
		}
		p.waitLog("msg=ready")
		m, wire, host := newMixer(t), listen(t, "veth0-far"), listen(t, "veth1-far")
		for range 20 {
			s := m.sample(2, 300)
			wire.send(s.frame)
			host.check(s)
		}
		if promiscuous(t, "veth0") == 0 {
			t.Error("frames to others are not heard")
		}
		byXDP := engine == "xdp" || engine == "direct"
		if byXDP {
			withoutCapabilities(t, m, wire)
		}
		if !end.killed {
			sum := readSummary(t, p.stop())
			if byXDP && (sum["host_down"][0] != 1 || sum["too_long"][0] != 1) {
				t.Errorf("one frame was too long, and one for an interface without a carrier: %v", sum)
			}
		} else {
			p.signal(os.Kill)
			<-p.exited
		}
		for _, name := range []string{"veth0", "veth1"} {
			for deadline := time.Now().Add(time.Minute); promiscuous(t, name) != 0; time.Sleep(time.Millisecond) {
				if time.Now().After(deadline) {
					t.Fatalf("%s stays promiscuous", name)
				}
			}
		}
		if err := errors.Join(netns.Up("veth1-far"), netns.Ready("veth1", "veth1-far")); err != nil {
			t.Fatal(err)
		}
		program.Await(t, "the interfaces as they were found", left)
	}
}

// asFound remembers what interfaces offer, and which programs they have, and reports later whether that is
// so again.
func asFound(t *testing.T, names ...string) (same func() bool) {
	t.Helper()
	look := func() (all string) {
		for _, name := range names {
			features, err := exec.Command("ethtool", "-k", name).CombinedOutput()
			if err != nil {
				rig.Missing(t, "needs ethtool: "+string(features))
			}
			l, err := netlink.LinkByName(name)
			if err != nil {
				t.Fatal(err)
			}
			all += fmt.Sprintf("%s%s %+v %+v\n", features, name, *l.Attrs().Xdp, l.Attrs().Flags)
		}
		return all
	}
	was := look()
	return func() bool { return look() == was }
}

// withoutCapabilities has a confined appliance ask what it asks the kernel by AF_XDP: how long a frame may be,
// and why one was thrown away. The host has no carrier then.
func withoutCapabilities(t *testing.T, m *mixer, wire port) {
	t.Helper()
	wire.send(m.sample(2, 1580).frame) // with its trailer too long for the host
	if err := rig.Down("veth1-far"); err != nil {
		t.Fatal(err)
	}
	program.Await(t, "an interface without a carrier", func() bool {
		i, err := net.InterfaceByName("veth1")
		return err == nil && i.Flags&net.FlagRunning == 0
	})
	dropped := func() uint64 {
		c, err := netns.Counters("veth1")
		if err != nil {
			t.Fatal(err)
		}
		return c.TxDropped
	}
	before := dropped()
	wire.send(m.sample(2, 300).frame)
	program.Await(t, "a frame that is thrown away", func() bool { return dropped() > before })
}

func promiscuous(t *testing.T, name string) int {
	t.Helper()
	l, err := netlink.LinkByName(name)
	if err != nil {
		t.Fatal(err)
	}
	return l.Attrs().Promisc
}

// TestQueues spreads SAs over two queues, by their SPIs where that can be told
// the kernel: order holds on each SA, ordinals count on each queue.
func TestQueues(t *testing.T) {
	rig.Require(t)
	testQueues(t, "", "wire0", "host0")
}

// An attached interface has queues as well, on either side or both, and its sockets take frames by SPI.
func TestAttachedQueues(t *testing.T) {
	rig.Require(t)
	if err := tap.CanSteer(); err != nil {
		rig.Missing(t, err.Error())
	}
	for _, name := range []string{"queued0", "queued1"} {
		if err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: name}, PeerName: name + "-far"}); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { netns.Delete(name) })
		if err := errors.Join(netns.Up(name), netns.Up(name+"-far"), netns.Ready(name, name+"-far")); err != nil {
			t.Fatal(err)
		}
	}
	const wire, host = "wire: {name: queued0, attach: true}\n", "host: {name: queued1, attach: true}\n"
	t.Run("wire", func(t *testing.T) { testQueues(t, wire, "queued0-far", "host0") })
	t.Run("host", func(t *testing.T) { testQueues(t, host, "wire0", "queued1-far") })
	t.Run("both", func(t *testing.T) { testQueues(t, wire+host, "queued0-far", "queued1-far") })
	for _, engine := range []string{"plain", "direct", "xdp"} {
		t.Run(engine, func(t *testing.T) {
			if lacking := tap.CanRedirect(); engine == "xdp" && lacking != nil {
				rig.Missing(t, lacking.Error())
			}
			testQueues(t, wire+host, "queued0-far", "queued1-far", "--engine", engine)
		})
	}
}

// testQueues has the far ends of wire and host.
func testQueues(t *testing.T, text, farWire, farHost string, flags ...string) {
	t.Helper()
	const flows, each = 16, 100
	text += "sas:\n"
	for i := range flows {
		text += fmt.Sprintf("  - {name: f%d, spi: %#x, dst: 198.51.100.10, protocol: esp, mode: transport, suite: aes128gcm16,\n"+
			"     encryption_key: 0x101112131415161718191a1b1c1d1e1fb1b2b3b4}\n", i, 0x5000+i)
	}
	p := launch(t, write(t, text), append(flags, "--queues", "2")...)
	bySPI := strings.Contains(p.waitLog("msg=ready"), "steered_by=spi")
	if !bySPI && tap.CanSteer() == nil {
		t.Error("not steered by SPI where that is possible")
	}
	wire, host := listen(t, farWire), listen(t, farHost)
	var sealers []*outbound.Sealer
	for i := range flows {
		sealers = append(sealers, sealer(t, sasOf(t, text)[fmt.Sprintf("f%d", i)]))
	}
	next, ordinals := map[uint32]uint64{}, map[uint16]uint64{}
	for range each {
		for _, s := range sealers {
			wire.send(framed(sealed(t, s, plain(server, 0, 100))))
		}
		for range sealers {
			_, trailer := host.delivered()
			r := trailer.Records[0]
			if trailer.Word != 0x2 || r.Number != next[r.SPI]+1 {
				t.Fatalf("SPI %#x: word %s, number %d after %d", r.SPI, trailer.Word, r.Number, next[r.SPI])
			}
			next[r.SPI] = r.Number
			if want := uint16(r.SPI % 2); bySPI && trailer.Queue != want {
				t.Fatalf("SPI %#x came by queue %d, want %d", r.SPI, trailer.Queue, want)
			}
			if trailer.Ordinal <= ordinals[trailer.Queue] {
				t.Fatalf("queue %d: ordinal %d after %d", trailer.Queue, trailer.Ordinal, ordinals[trailer.Queue])
			}
			ordinals[trailer.Queue] = trailer.Ordinal
		}
	}
	if len(ordinals) != 2 {
		t.Errorf("frames on the queues %v, want two", ordinals)
	}
	if sum := readSummary(t, p.stop()); sum["nic/verified"][0] != flows*each {
		t.Errorf("verified %v, want %d over both queues", sum["nic/verified"], flows*each)
	}
}

// TestNothingLeft: where the second interface cannot be had the first vanishes,
// from another namespace too.
func TestNothingLeft(t *testing.T) {
	rig.Require(t)
	away := testkit.NewStack(t, "away")
	for _, flags := range [][]string{{"--host", "lo"}, {"--host", "lo", "--wire-netns", "away"}, {"--host-netns", "nowhere"}} {
		p := launch(t, write(t, headSA), flags...)
		p.end(1)
		if said := p.logged(); !strings.Contains(said, "lo is not a TAP") && !strings.Contains(said, "ip netns add nowhere") {
			t.Errorf("%v: %s", flags, said)
		}
		absent(t, "wire0", "host0")
		away.Do(func() error {
			absent(t, "wire0")
			return nil
		})
	}
}

// TestBadContainer: what stands in the place of the tun device, as in a badly started container, is named, and so is
// a /proc that is not there, by doctor too.
func TestBadContainer(t *testing.T) {
	rig.Require(t)
	const device, noProc = "mount --bind /dev/null /dev/net/tun", "mount -t tmpfs none /proc"
	for _, c := range []struct{ mount, args, says string }{
		{device, "run -c " + write(t, headSA), "/dev/net/tun is another device"}, {device, "doctor", "/dev/net/tun is another device"},
		{noProc, "run -c " + write(t, headSA), "mount /proc"}, {noProc, "doctor", "run needs /proc"},
	} {
		cmd := exec.Command("unshare", "-m", "sh", "-c", c.mount+` && exec "$0" $1`, program.Path, c.args)
		out, err := cmd.CombinedOutput()
		if err != nil && strings.Contains(string(out), "mount:") {
			rig.Missing(t, "needs to mount: "+string(out))
		}
		if err == nil || !strings.Contains(strings.Join(strings.Fields(string(out)), " "), c.says) {
			t.Errorf("%s: %v, says\n%s", c.args, err, out)
		}
	}
}

// TestUnprivileged: without CAP_NET_ADMIN over its namespace it says so.
func TestUnprivileged(t *testing.T) {
	rig.Require(t)
	p := launchAs(t, userNamespace(0), write(t, headSA))
	p.end(1)
	if said := p.logged(); !strings.Contains(said, "needs CAP_NET_ADMIN") {
		t.Errorf("got %q", said)
	}
	absent(t, "wire0", "host0")
}

// userNamespace makes a child root in a user namespace of its own, and there
// alone.
func userNamespace(more uintptr) *syscall.SysProcAttr {
	return &syscall.SysProcAttr{
		Cloneflags:  unix.CLONE_NEWUSER | more,
		UidMappings: []syscall.SysProcIDMap{{HostID: os.Geteuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{HostID: os.Getegid(), Size: 1}},
	}
}

// TestRootless runs other tests once more where nobody is root but inside the
// rig.
func TestRootless(t *testing.T) {
	rig.Require(t)
	cmd := exec.Command("/proc/self/exe", "-test.run=^(TestVerdicts|TestNamespaces|TestQueues)$", "-test.v")
	cmd.SysProcAttr = userNamespace(unix.CLONE_NEWNET | unix.CLONE_NEWNS)
	cmd.SysProcAttr.Pdeathsig = unix.SIGKILL
	said, err := cmd.CombinedOutput()
	if err != nil || bytes.Count(said, []byte("--- PASS")) != 3 {
		t.Errorf("%v\n%s", err, said)
	}
}

// TestRefused: what the user can mend is exit code 2, and makes no interface.
func TestRefused(t *testing.T) {
	rig.Require(t)
	for _, refused := range []struct {
		text  string
		flags []string
		want  string
	}{
		{"x: 1" + headSA, nil, "no such field"},
		{headSA, []string{"--annotate", "none"}, "nobody could tell"},
		{headSA, []string{"--form", "upside-down"}, "--form"},
		{headSA, []string{"--queues", "257"}, "expected 1 to 256"},
		{headSA, []string{"--host", "wire0"}, "different names"},
		{headSA, []string{"--no-such-flag"}, "unknown flag"},
		{headSA, []string{"argument"}, "unexpected argument"},
		{headSA, []string{"--mirror-xfrm", "--transport", "stack0"}, "NIC without a transport"},
	} {
		p := launch(t, write(t, refused.text), refused.flags...)
		p.end(2)
		if said := p.logged(); !strings.Contains(said, refused.want) || strings.Contains(said, "000102030405") {
			t.Errorf("%v: %s", refused.flags, said)
		}
		absent(t, "wire0", "host0")
	}
}
