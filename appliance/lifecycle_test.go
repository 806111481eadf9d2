package appliance

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"tapsec/configs"
	"tapsec/control"
	"tapsec/internal/fragment"
	"tapsec/internal/lab/forge"
	"tapsec/internal/ledger"
	"tapsec/internal/outbound"
	"tapsec/pipeline"
	"tapsec/sa"
	"tapsec/status"
	"tapsec/transport"
)

// Two gateways and a host behind each.
var (
	peerGate, ourGate = netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")
	peerHost, ourHost = netip.MustParseAddr("10.1.0.1"), netip.MustParseAddr("10.2.0.2")
)

// makeSA makes one towards us, with a key of its own.
func makeSA(name string, spi uint32, protocol sa.Protocol, mode sa.Mode, suiteName string) *sa.SA {
	suite, err := sa.ParseSuite(protocol, suiteName)
	if err != nil {
		panic(err)
	}
	key := func(n int) sa.Key {
		b := bytes.Repeat([]byte{byte(spi), byte(spi >> 8), byte(spi >> 16)}, n)
		return sa.NewKey(b[:n])
	}
	return &sa.SA{Name: name, SPI: spi, Src: peerGate, Dst: ourGate, Protocol: protocol, Mode: mode, Suite: suite, PadCheck: true,
		EncryptionKey: key(suite.EncryptionKeyLen()), IntegrityKey: key(suite.IntegrityKeyLen()), Window: sa.DefaultWindow, Direction: sa.Inbound}
}

// bench is an Appliance without interfaces: the NIC, the transport, and what
// changes them.
type bench struct {
	*Appliance
	life    lifecycle
	log     *bytes.Buffer
	answers bool // the NIC that asks for deletions, as a full one does
}

// newBench makes the one of a configuration, which each reload makes anew.
func newBench(t interface{ Fatal(...any) }, load func() *configs.Config, withHost bool) *bench {
	b := &bench{log: &bytes.Buffer{}}
	b.Appliance = &Appliance{ledger: ledger.New(), config: load(), log: slog.New(slog.NewTextHandler(b.log, nil))}
	b.options.Load = func() (*configs.Config, error) { return load(), nil }
	b.life = lifecycle{b.Appliance}
	var err error
	if b.adapter, err = newAdapter(b.config, b.ledger.Marks(), nil); err != nil {
		t.Fatal(err)
	}
	if withHost {
		h := &host{log: b.Appliance.log, software: pipeline.NewSoftware(), remembers: true, sides: newSides(), mtu: 1500,
			options: outbound.Config{Ledger: b.ledger}, reassembler: reassembler{fragments: fragment.New(fragment.Limits{})}}
		h.software.Remember(b.ledger.Marks())
		h.consumer, err = transport.New(transport.Config{Fallback: h.software, Ledger: b.ledger, NIC: direct{b.adapter.sad, func(s *sa.SA) {
			if b.answers {
				b.takeBack(s)
			}
		}}})
		if err == nil {
			err = h.adopt(b.config)
		}
		if err != nil {
			t.Fatal(err)
		}
		b.host = h
	}
	b.enlist(b.config)
	return b
}

// flow is a peer that sends to one bundle.
type flow struct {
	bundle []*sa.SA
	packet []byte

	mu     sync.Mutex // from a frame's number to its end, so that the window does not run away
	sealer *outbound.Sealer
	old    []byte // a frame that has passed
}

func newFlow(bundle ...*sa.SA) *flow {
	f := &flow{bundle: bundle}
	from, to := peerHost, ourHost
	if bundle[0].Mode == sa.Transport {
		from, to = peerGate, ourGate
	}
	f.packet = forge.UDP(nil, netip.AddrPortFrom(from, 1), netip.AddrPortFrom(to, 2), make([]byte, 64))
	inner := slices.Clone(bundle)
	slices.Reverse(inner)
	var err error
	if f.sealer, err = outbound.NewSealer(nil, inner...); err != nil {
		panic(err)
	}
	return f
}

func (f *flow) frame() []byte {
	packet, err := f.sealer.Seal(nil, f.packet)
	if err != nil {
		panic(err)
	}
	return append(append(make([]byte, 12, 2048), 8, 0), packet...)
}

// send has a frame go through a queue of the NIC and the transport.
func (b *bench) send(f *flow, queue int) (word status.Word, reason status.Reason, clean, again bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	judge := func(frame []byte) (*status.Trailer, bool) {
		annotated := b.adapter.pipelines[queue].Process(frame)
		_, trailer, err := status.Split(annotated)
		if err != nil {
			panic(err)
		}
		_, verdict, _ := b.host.consumer.Judge(annotated)
		return &trailer, verdict.Clean()
	}
	frame := f.frame()
	copied := append(make([]byte, 0, 2048), frame...)
	trailer, clean := judge(frame)
	if f.old != nil {
		_, again = judge(append(make([]byte, 0, 2048), f.old...))
	}
	if clean {
		f.old = copied
	}
	return trailer.Word, trailer.Reason, clean, again
}

// pool are the bundles that the model knows; the first and the last one stand in
// the file.
func pool() (all []*flow) {
	for i := range uint32(5) {
		all = append(all, newFlow(makeSA(fmt.Sprint("tunnel", i), 0x1000+i, sa.ESP, sa.Tunnel, "aes128gcm16")))
	}
	ah, esp := makeSA("ah", 0x2000, sa.AH, sa.Transport, "sha256"), makeSA("esp", 0x2001, sa.ESP, sa.Transport, "aes128-sha256")
	ah.Bundle = esp.Name
	all = append(all, newFlow(ah, esp))
	beyond, soft := makeSA("beyond", 0x3000, sa.ESP, sa.Tunnel, "chacha20poly1305"), makeSA("soft", 0x3001, sa.ESP, sa.Tunnel, "chacha20poly1305")
	soft.Offload = sa.Preferred
	all = append(all, newFlow(beyond), newFlow(soft))
	out := makeSA("out", 0x4000, sa.ESP, sa.Tunnel, "aes128gcm16")
	out.Src, out.Dst, out.Direction = out.Dst, out.Src, sa.Outbound
	return append(all, newFlow(out))
}

const capacity = 4 // bundles

// model is what there should be.
type model struct {
	order     []int // indices of the pool, as they came
	offloaded map[int]bool
	added     map[int]bool
}

func (m *model) has(i int) bool { return slices.Contains(m.order, i) }

func (m *model) drop(i int) {
	m.order = slices.DeleteFunc(m.order, func(o int) bool { return o == i })
	delete(m.offloaded, i)
	delete(m.added, i)
}

// add says which error an add of these must give, and takes them where it is none.
func (m *model) add(which []int, flows []*flow) error {
	room := capacity - len(m.offloaded)
	for _, i := range which {
		if m.has(i) {
			return sa.ErrExists
		}
	}
	for _, i := range which {
		if s := flows[i].bundle[0]; s.Name == "beyond" {
			return errBeyond
		} else if s.Name != "soft" {
			if room--; room < 0 {
				return sa.ErrFull
			}
		}
	}
	for _, i := range which {
		m.order = append(m.order, i)
		m.added[i] = true
		if flows[i].bundle[0].Name != "soft" {
			m.offloaded[i] = true
		}
	}
	return nil
}

var errBeyond = errors.New("beyond the profile")

// TestLifecycle drives random operations beside traffic, and holds what is there
// against a model: SAs, what the NIC holds, what becomes of frames, and that no
// frame is taken twice however often its SA went and came (contract, Lifecycle,
// row 27).
func TestLifecycle(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		flows := pool()
		b := newBench(t, func() *configs.Config {
			c := configs.Default()
			c.Profile, _ = sa.ProfileByName("ndis-v2")
			c.SACapacity, c.Queues, c.Local = capacity, 2, []netip.Addr{ourGate, ourHost}
			for _, f := range pool() {
				if s := f.bundle[0]; s.Name == "tunnel0" || s.Name == "out" {
					c.SAs = append(c.SAs, s)
				}
			}
			return c
		}, true)
		last := len(flows) - 1
		m := &model{order: []int{0, last}, offloaded: map[int]bool{0: true, last: true}, added: map[int]bool{}}
		stop, traffic := make(chan struct{}), sync.WaitGroup{}
		traffic.Go(func() {
			for i := 0; ; i = (i + 1) % last {
				select {
				case <-stop:
					return
				default:
					b.send(flows[i], 0)
				}
			}
		})
		defer traffic.Wait()
		defer close(stop)
		one := func(t *rapid.T) int { return rapid.IntRange(0, last).Draw(t, "which") }
		t.Repeat(map[string]func(*rapid.T){
			"":       func(t *rapid.T) { b.compare(t, m, flows) },
			"add":    func(t *rapid.T) { b.drawAdd(t, m, flows) },
			"delete": func(t *rapid.T) { b.drawDelete(t, m, flows) },
			"flush": func(t *rapid.T) {
				if n, err := b.life.Flush(); err != nil || n < len(m.order) {
					t.Fatal(n, err)
				}
				*m = model{offloaded: map[int]bool{}, added: map[int]bool{}}
			},
			"update": func(t *rapid.T) {
				i := one(t)
				if err := b.life.Update(control.RefOf(flows[i].bundle[0]), 0); (err == nil) != m.offloaded[i] {
					t.Fatal(err)
				}
			},
			"reload": func(t *rapid.T) { b.reload(t, m, last) },
			"send": func(t *rapid.T) {
				i := rapid.IntRange(0, last-1).Draw(t, "which")
				word, reason, clean, again := b.send(flows[i], 1)
				if clean != m.has(i) || word.Done() != m.offloaded[i] || again {
					t.Fatalf("%s: word %s, reason %s, delivered %v, its copy %v; there: %v, offloaded: %v",
						flows[i].bundle[0], word, reason, clean, again, m.has(i), m.offloaded[i])
				}
			},
		})
	})
}

// drawAdd adds one to three bundles at once.
func (b *bench) drawAdd(t *rapid.T, m *model, flows []*flow) {
	which := rapid.SliceOfNDistinct(rapid.IntRange(0, len(flows)-1), 1, 3, rapid.ID[int]).Draw(t, "which")
	var sas []*sa.SA
	for _, i := range which {
		for _, s := range flows[i].bundle {
			own := *s
			sas = append(sas, &own)
		}
	}
	want := m.add(which, flows)
	added, err := b.life.Add(sas)
	var lacks *sa.Unsupported
	switch {
	case errors.Is(want, errBeyond):
		if !errors.As(err, &lacks) || !strings.Contains(lacks.Missing, "chacha20poly1305") {
			t.Fatalf("%v instead of %v", err, want)
		}
	case !errors.Is(err, want) || err == nil && len(added) != len(sas):
		t.Fatalf("%v instead of %v", err, want)
	}
}

// drawDelete deletes one, by name or identity, or takes it from the NIC.
func (b *bench) drawDelete(t *rapid.T, m *model, flows []*flow) {
	i := rapid.IntRange(0, len(flows)-1).Draw(t, "which")
	s := rapid.SampledFrom(flows[i].bundle).Draw(t, "half")
	ref := rapid.SampledFrom([]control.Ref{control.RefOf(s), {Name: s.Name}}).Draw(t, "by")
	nicOnly := rapid.Bool().Draw(t, "NIC only")
	want := m.has(i)
	if nicOnly {
		want = m.offloaded[i]
	}
	err := b.life.Delete(ref, nicOnly)
	if (err == nil) != want || err != nil && !errors.Is(err, sa.ErrUnknown) {
		t.Fatalf("%s: %v", s, err)
	}
	if delete(m.offloaded, i); !nicOnly {
		m.drop(i)
	}
}

// reload brings back what the file says and keeps what was added. The NIC takes
// those that are required first.
func (b *bench) reload(t *rapid.T, m *model, last int) {
	stay := slices.DeleteFunc(slices.Clone(m.order), func(i int) bool { return !m.added[i] || i == 0 || i == last })
	held := 2
	for _, i := range stay {
		if i != 7 { // soft
			held++
		}
	}
	err := b.Reload()
	if held > capacity {
		if err == nil {
			t.Fatal("a reload took more than there is room for")
		}
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	*m = model{order: append([]int{0, last}, stay...), offloaded: map[int]bool{0: true, last: true}, added: map[int]bool{}}
	for _, i := range stay {
		m.added[i] = true
		if i != 7 {
			m.offloaded[i] = true
		}
	}
}

// compare holds the list, page by page, against the model.
func (b *bench) compare(t *rapid.T, m *model, flows []*flow) {
	var got, want []string
	limit := rapid.IntRange(1, 4).Draw(t, "limit")
	for after := uint64(0); ; {
		page := b.life.List(after, limit)
		for _, s := range page.SAs {
			got = append(got, fmt.Sprint(s.Name, s.Offloaded, s.Origin))
		}
		if after = page.Next; after == 0 {
			break
		}
	}
	for _, i := range m.order {
		origin := "file"
		if m.added[i] {
			origin = "socket"
		}
		for _, s := range flows[i].bundle {
			want = append(want, fmt.Sprint(s.Name, m.offloaded[i], origin))
		}
	}
	if !slices.Equal(got, want) {
		t.Fatalf("there is %q, expected %q", got, want)
	}
	if held, _ := b.adapter.sad.Room(); held != len(m.offloaded) {
		t.Fatalf("the NIC holds %d bundles, expected %d", held, len(m.offloaded))
	}
}

// A NIC that asks for an SA gets two deletes: for the inbound SA and for the
// outbound one that belongs to it, of two generations the older one. Both go on in
// software, and before it is told the NIC removes neither.
func TestTakeBack(t *testing.T) {
	in := []*sa.SA{makeSA("in1", 0x1001, sa.ESP, sa.Tunnel, "aes128gcm16"), makeSA("in2", 0x1002, sa.ESP, sa.Tunnel, "aes128gcm16")}
	var out []*sa.SA
	for i, s := range in {
		o := *makeSA(fmt.Sprint("out", i+1), 0x2001+uint32(i), sa.ESP, sa.Tunnel, "aes128gcm16")
		o.Src, o.Dst, o.Direction = s.Dst, s.Src, sa.Outbound
		out = append(out, &o)
	}
	b := newBench(t, func() *configs.Config {
		c := configs.Default()
		c.Local, c.SAs = []netip.Addr{ourGate, ourHost}, slices.Concat(in, out)
		return c
	}, true)
	held := func() (names string) {
		for _, s := range b.life.List(0, 10).SAs {
			if s.Offloaded {
				names += s.Name + " "
			}
		}
		return names
	}
	b.answers = true
	b.adapter.sad.ForcePressure(true)
	first, second := newFlow(in[0]), newFlow(in[1])
	for _, step := range []struct {
		flow *flow
		want string
	}{{first, "in2 out2 "}, {second, ""}} {
		before := held()
		if word, _, _, _ := b.send(step.flow, 0); !word.DeleteSA() || before == "" {
			t.Fatalf("word %s, before it the NIC holds %q", word, before)
		}
		for patience := time.Now().Add(time.Minute); held() != step.want; time.Sleep(time.Millisecond) { // beside the frames
			if time.Now().After(patience) {
				t.Fatalf("the NIC holds %q, expected %q", held(), step.want)
			}
		}
		if word, _, clean, _ := b.send(step.flow, 0); word != 0 || !clean {
			t.Errorf("afterwards: word %s, delivered: %v", word, clean)
		}
	}
	if n := len(b.life.List(0, 10).SAs); n != 4 {
		t.Errorf("the transport has %d SAs, expected 4", n)
	}
}

// What goes leaves nothing behind: as many SAs as one likes come and go.
func TestChurn(t *testing.T) {
	const rounds, warm = 200, 20
	for _, withHost := range []bool{false, true} {
		b := newBench(t, func() *configs.Config {
			c := configs.Default()
			c.Local = []netip.Addr{ourGate, ourHost}
			return c
		}, withHost)
		b.Appliance.log = slog.New(slog.DiscardHandler)
		var before uint64
		for round := range rounds {
			if round == warm {
				before = heap()
			}
			for i := range uint32(50) { // with a transport the ledger remembers each key, and here they come again
				spi := 0x10000 + i
				if !withHost {
					spi += uint32(round) * 50
				}
				if _, err := b.life.Add([]*sa.SA{makeSA("one", spi, sa.ESP, sa.Tunnel, "aes128gcm16")}); err != nil {
					t.Fatal(err)
				}
				if err := b.life.Delete(control.Ref{Name: "one"}, false); err != nil {
					t.Fatal(err)
				}
			}
		}
		if after := heap(); after > before+1<<20 {
			t.Errorf("with a transport %v: %d bytes before %d SAs came and went, %d after", withHost, before, (rounds-warm)*50, after)
		}
		runtime.KeepAlive(b)
	}
}

func heap() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// A long list is read page by page, while its SAs come and go: what stays is seen
// once.
func TestPages(t *testing.T) {
	const n = 100_000
	r := newRoster()
	one := makeSA("", 1, sa.ESP, sa.Tunnel, "null-sha256")
	for i := range uint32(n) {
		s := *one
		s.Name, s.SPI = fmt.Sprint(i), i+1
		r.add([]*sa.SA{&s}, ofSocket)
	}
	seen := map[string]bool{}
	for after, more := uint64(0), true; more; {
		var page []*member
		page, more = r.after(after, 1000)
		for _, m := range page {
			if seen[m.Name] {
				t.Fatalf("%s is there twice", m.Name)
			}
			seen[m.Name] = true
		}
		after = page[len(page)-1].place
		for _, m := range page {
			if m.SPI%3 != 0 { // behind the reader, until the list is packed
				r.remove(m.bundle)
			}
		}
	}
	if rest, _ := r.after(0, n); len(seen) != n || len(rest) != n/3 || len(r.order) > 2*n/3+1 {
		t.Errorf("%d of %d were seen, %d are left in %d places", len(seen), n, len(rest), len(r.order))
	}
}

// What is exported has the numbers that were reached, so that a successor repeats none; a
// name is an SA's alone; and a place in a list is never used again.
func TestExport(t *testing.T) {
	in, out := makeSA("in", 9, sa.ESP, sa.Tunnel, "aes128gcm16"), makeSA("out", 10, sa.ESP, sa.Tunnel, "aes128gcm16")
	out.Src, out.Dst, out.Direction = ourGate, peerGate, sa.Outbound
	b := newBench(t, func() *configs.Config {
		c := configs.Default()
		c.Local = []netip.Addr{ourGate, ourHost}
		return c
	}, true)
	if _, err := b.life.Add([]*sa.SA{in, out}); err != nil {
		t.Fatal(err)
	}
	if _, err := b.life.Add([]*sa.SA{makeSA("in", 11, sa.ESP, sa.Tunnel, "aes128gcm16")}); control.ErrorOf(err).Code != control.Exists {
		t.Errorf("a name twice: %v", err)
	}
	f := newFlow(in)
	for range 2 {
		if _, reason, clean, _ := b.send(f, 0); !clean {
			t.Errorf("not delivered: %s", reason)
		}
	}
	plain := forge.AppendFrame(nil, forge.UDP(nil, netip.AddrPortFrom(ourHost, 1), netip.AddrPortFrom(peerHost, 2), nil))
	for range 3 {
		if sent := b.host.sender.Batch([][]byte{plain}); len(sent) != 1 {
			t.Error("not sealed")
		}
	}
	seq, oseq := uint64(0), uint64(0)
	for s := range b.life.Export() {
		seq, oseq = seq+s.Seq, oseq+s.OSeq
	}
	if seq != 2 || oseq != 3 {
		t.Errorf("exported with the numbers %d and %d", seq, oseq)
	}
	last := b.life.List(0, 9).SAs[1].Cursor
	if _, err := b.life.Flush(); err != nil {
		t.Error(err)
	}
	if all, err := b.life.Add([]*sa.SA{makeSA("new", 12, sa.ESP, sa.Tunnel, "aes128gcm16")}); err != nil || all[0].Cursor <= last {
		t.Errorf("behind place %d came %+v, %v", last, all, err)
	}
}

// BenchmarkChurn adds and deletes an SA with a key of its own; a million of them
// leave no heap behind (-benchtime 1000000x).
func BenchmarkChurn(b *testing.B) {
	nic := newBench(b, configs.Default, false)
	nic.Appliance.log = slog.New(slog.DiscardHandler)
	before := heap()
	for i := range b.N {
		s := makeSA("one", 0x10000+uint32(i), sa.ESP, sa.Tunnel, "aes128gcm16")
		if _, err := nic.life.Add([]*sa.SA{s}); err != nil {
			b.Fatal(err)
		}
		if err := nic.life.Delete(control.RefOf(s), false); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(heap())-float64(before), "B-left")
	runtime.KeepAlive(nic)
}
