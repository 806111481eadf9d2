package inspect_test

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"tapsec/appliance"
	"tapsec/capture"
	"tapsec/configs"
	"tapsec/internal/inspect"
	"tapsec/internal/lab/forge"
	"tapsec/internal/outbound"
	"tapsec/keys"
	"tapsec/sa"
)

// told is everything that an Inspector has to say of a capture.
type told struct{ lines, file, summary, failure string }

// judge leads a capture through that many workers.
func judge(c *configs.Config, text []byte, opt inspect.Options, workers, batch int, carried ...capture.Secret) (told, error) {
	var lines, copied bytes.Buffer
	nic, err := appliance.NewOfflineOf(c, workers)
	if err != nil {
		return told{}, err
	}
	i, err := inspect.New(nic, c, &lines, opt)
	if err != nil {
		return told{}, err
	}
	i.Batches(batch)
	frames, err := capture.NewReader(ready{bytes.NewReader(text)})
	if err != nil {
		return told{}, err
	}
	file := inspect.NewFile("copy", keepOpen{&copied}, frames, c.Host.Annotate == configs.None, carried)
	failure := fmt.Sprint(i.Capture(frames, file, func() error { return nil }))
	if err := file.Close(); err != nil {
		failure += err.Error()
	}
	sum, err := json.Marshal(i.Summary())
	return told{lines.String(), copied.String(), string(sum), failure}, err
}

type keepOpen struct{ io.Writer }

func (keepOpen) Close() error { return nil }

// ready is a capture for which nobody waits.
type ready struct{ io.Reader }

func (ready) MayWait() bool { return false }

// ways of telling, that make the most of a frame or of its order.
var ways = []inspect.Options{{}, {JSON: true}, {Colour: true, Filter: inspect.Filter{Only: 2 | 16 | 32}}, {Shown: true}}

// agree compares what one worker tells with what several do.
func agree(t interface{ Fatalf(string, ...any) }, c *configs.Config, text []byte, opt inspect.Options, carried ...capture.Secret) {
	want, err := judge(c, text, opt, 1, inspect.BatchFrames, carried...)
	if err != nil {
		return // no capture
	}
	for _, crew := range []struct{ workers, batch int }{{1, 3}, {2, 1}, {3, 3}, {5, inspect.BatchFrames}} {
		got, err := judge(c, text, opt, crew.workers, crew.batch, carried...)
		if err != nil || got != want {
			t.Fatalf("%d workers with batches of %d: %v\n%s", crew.workers, crew.batch, err, difference(got, want))
		}
	}
}

func difference(got, want told) string {
	for n, pair := range [][2]string{{got.lines, want.lines}, {got.summary, want.summary}, {got.failure, want.failure}} {
		g, w := strings.Split(pair[0], "\n"), strings.Split(pair[1], "\n")
		for i := range min(len(g), len(w)) {
			if g[i] != w[i] {
				return fmt.Sprintf("%s\nwith one worker:\n%s", g[i], w[i])
			}
		}
		if len(g) != len(w) {
			return fmt.Sprintf("text %d has %d lines, with one worker %d", n, len(g), len(w))
		}
	}
	return fmt.Sprintf("%d bytes of the file differ from %d", len(got.file), len(want.file))
}

// Whatever the number of workers, a capture is told of byte for byte as by one of them.
func TestWorkersAgree(t *testing.T) {
	for path, c := range captures(t) {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, opt := range ways {
			agree(t, c, text, opt)
		}
		as := *c
		as.Host.Form, as.Host.Annotate = configs.Decap, configs.None
		agree(t, &as, text, inspect.Options{Quiet: true})
		agree(t, c, text, inspect.Options{}, capture.Secret{Type: capture.SecretSAs, Data: []byte("sas: []\n")})
	}
}

// captures are those of the repository with the SAs of each.
func captures(t testing.TB) map[string]*configs.Config {
	t.Helper()
	all := map[string]*configs.Config{}
	config := func(path string) *configs.Config {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		c, err := configs.ParseKeys(path, text)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	layers := config("../../configs/layers.yaml")
	for _, pattern := range []string{"../../configs/*.pcapng", "../../capture/testdata/*", "../../test/interop/linux/captures/*.pcap", "../../test/interop/linux/captures/*/*.pcap"} {
		paths, err := filepath.Glob(pattern)
		if err != nil || len(paths) == 0 {
			t.Fatalf("%s: %d captures, %v", pattern, len(paths), err)
		}
		for _, path := range paths {
			all[path] = layers
			if keys := strings.TrimSuffix(path, ".pcap") + ".xfrm"; keys != path+".xfrm" {
				if _, err := os.Stat(keys); err == nil {
					all[path] = config(keys)
				}
			}
		}
	}
	return all
}

// TestWorkersAgreeOnESN: numbers that jump by nearly half of 2^32 and come out of order, on an
// inner SA that two tunnels share, mean what the frames before them say.
func TestWorkersAgreeOnESN(t *testing.T) {
	differed := 0
	rapid.Check(t, func(t *rapid.T) {
		c, sealers := jumping(t)
		var text bytes.Buffer
		w, err := capture.NewWriter(&text)
		if err == nil {
			_, err = w.Interface("wire", "")
		}
		packet := forge.UDP(nil, netip.MustParseAddrPort("10.0.0.1:7"), netip.MustParseAddrPort("10.0.0.2:7"), make([]byte, 40))
		var sent [][]byte
		step := rapid.Uint64Range(0, 1<<33)
		for n := range rapid.IntRange(1, 40).Draw(t, "frames") {
			s := sealers[rapid.IntRange(0, len(sealers)-1).Draw(t, "way")]
			for layer := range 2 {
				s.SetNumber(layer, s.Number(layer)+step.Draw(t, "jump"))
			}
			sealed, sealErr := s.Seal(nil, packet)
			if sealErr != nil {
				t.Fatal(sealErr)
			}
			frame := forge.AppendFrame(nil, sealed)
			if n > 0 && rapid.IntRange(0, 4).Draw(t, "again") == 0 {
				frame = sent[rapid.IntRange(0, n-1).Draw(t, "which")]
			}
			sent = append(sent, frame)
			if err == nil {
				err = w.Frame(0, time.Unix(1700000000, int64(n)), frame, "")
			}
		}
		if err != nil {
			t.Fatal(err)
		}
		agree(t, c, text.Bytes(), inspect.Options{JSON: true})
		one, err := judge(c, text.Bytes(), inspect.Options{}, 1, inspect.BatchFrames)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(one.lines, "FAILED") && strings.Contains(one.lines, "good, both") {
			differed++
		}
	})
	if differed == 0 {
		t.Error("no capture had numbers that a window completes wrongly beside ones that it does not")
	}
}

// Blocks between frames keep their places in the file, also one that is too long to be kept.
func TestWorkersAgreeOnBlocks(t *testing.T) {
	text, err := os.ReadFile("../../configs/layers.pcapng")
	if err != nil {
		t.Fatal(err)
	}
	c := captures(t)["../../configs/layers.pcapng"]
	var all []byte
	for n := 0; len(text) > 0; n++ {
		length := int(binary.LittleEndian.Uint32(text[4:]))
		all, text = append(all, text[:length]...), text[length:]
		strange := make([]byte, 12+n%3*2*inspect.MostAside/4*4)
		binary.LittleEndian.PutUint32(strange, 0x0bad)
		binary.LittleEndian.PutUint32(strange[4:], uint32(len(strange)))
		binary.LittleEndian.PutUint32(strange[len(strange)-4:], uint32(len(strange)))
		all = append(all, strange...)
	}
	agree(t, c, all, inspect.Options{})
	got, err := judge(c, all, inspect.Options{}, 3, 2)
	if kept := strings.Count(got.file, "\xad\x0b\x00\x00"); err != nil || kept < 10 {
		t.Errorf("%d blocks were kept, %v", kept, err)
	}
}

// jumping are two ESN tunnels, which had other keys before, with one ESN transport SA in them, and who seals for them. Both
// sealers number the inner SA by themselves, as after a change of the way.
func jumping(t *rapid.T) (*configs.Config, []*outbound.Sealer) {
	suite, err := sa.ParseSuite(sa.ESP, "aes128gcm16")
	if err != nil {
		t.Fatal(err)
	}
	newSA := func(spi uint32, mode sa.Mode, src, dst string, key byte) *sa.SA {
		return &sa.SA{Name: fmt.Sprint("sa", spi), SPI: spi, Protocol: sa.ESP, Mode: mode, Suite: suite, ESN: true, Window: 64, PadCheck: true,
			Src: netip.MustParseAddr(src), Dst: netip.MustParseAddr(dst), EncryptionKey: sa.NewKey(bytes.Repeat([]byte{key}, 20))}
	}
	c := configs.Default()
	inner := newSA(0x2001, rapid.SampledFrom([]sa.Mode{sa.Transport, sa.Auto}).Draw(t, "mode"), "10.0.0.1", "10.0.0.2", 1)
	c.SAs = append(c.SAs, inner)
	seals := *inner
	seals.Mode = sa.Transport
	var sealers []*outbound.Sealer
	for n := range 2 {
		outer := newSA(uint32(0x1001+n), sa.Tunnel, "192.0.2.1", "192.0.2.2", byte(2+n))
		s, err := outbound.NewSealer(forge.Zeros{}, &seals, outer)
		if err != nil {
			t.Fatal(err)
		}
		c.SAs, sealers = append(c.SAs, outer), append(sealers, s)
		old := newSA(outer.SPI, sa.Tunnel, "192.0.2.1", "192.0.2.2", byte(4+n))
		c.Former = append(c.Former, keys.Former{SA: old, Until: time.Unix(1700000000, rapid.Int64Range(0, 40).Draw(t, "until"))})
	}
	return c, sealers
}

// TestLivePipe: a frame is told of before the next one is written, by several workers as by one.
func TestLivePipe(t *testing.T) {
	c := captures(t)["../../configs/layers.pcapng"]
	for workers := 1; workers <= 3; workers++ {
		nic, err := appliance.NewOfflineOf(c, workers)
		if err != nil {
			t.Fatal(err)
		}
		in, writer := io.Pipe()
		lines, out := io.Pipe()
		i, err := inspect.New(nic, c, out, inspect.Options{})
		if err != nil {
			t.Fatal(err)
		}
		ended := make(chan error, 1)
		go func() {
			frames, err := capture.NewReader(in)
			if err == nil {
				err = i.Capture(frames, nil, func() error { return nil })
			}
			ended <- err
		}()
		w, err := capture.NewWriter(writer)
		if err == nil {
			_, err = w.Interface("wire", "")
		}
		for n := range 5 {
			if err == nil {
				err = w.Frame(0, time.Unix(1700000000, int64(n)), make([]byte, 60), "")
			}
			if _, err := io.ReadFull(lines, make([]byte, 1)); err != nil { // waits for ever without a line
				t.Fatal(err)
			}
			if _, err := lines.Read(make([]byte, 1000)); err != nil {
				t.Fatal(err)
			}
		}
		if err := writer.Close(); err != nil {
			t.Fatal(err)
		}
		if end := <-ended; err != nil || end != nil || i.Frames() != 5 {
			t.Errorf("%d workers: %d frames, %v, %v", workers, i.Frames(), err, end)
		}
	}
}

// FuzzWorkers: the same of whatever a capture is.
func FuzzWorkers(f *testing.F) {
	var c *configs.Config
	for path, its := range captures(f) {
		text, err := os.ReadFile(path)
		if err != nil {
			f.Fatal(err)
		}
		if c = its; len(text) < 1<<14 {
			f.Add(text, uint8(0))
		}
	}
	f.Fuzz(func(t *testing.T, text []byte, way uint8) {
		agree(t, c, text, ways[int(way)%len(ways)])
	})
}
