package bench

import (
	"bytes"
	"fmt"
	"io"
	"time"

	"tapsec/appliance"
	"tapsec/capture"
	"tapsec/configs"
	"tapsec/internal/inspect"
	"tapsec/internal/lab/forge"
	"tapsec/internal/outbound"
	"tapsec/sa"
)

// Replay is what reading a capture costs, and what it costs peers. The result is that
// of Lines, and its ratios are over the peers.
type Replay struct {
	Result
	Rows []ReplayRow `json:"rows"`
}

// ReplayRow is what a frame of a capture costs with one kind of output, which is
// discarded, or a peer.
type ReplayRow struct {
	Output string `json:"output"`
	Size   int    `json:"size"` // octets that the innermost IPsec header protects

	CPU        float64 `json:"cpu_ns"` // a frame, of all the process's threads; of a peer without its start
	CPUSpread  spread  `json:"cpu_ns_spread"`
	Rate       float64 `json:"frames_per_s"`
	RateSpread spread  `json:"frames_per_s_spread"`
	Rounds     int     `json:"rounds"`
}

// The kinds of output.
const (
	Lines   = "lines"   // the default
	Objects = "json"    // --json
	Copied  = "file"    // -o, and so no lines
	Summed  = "summary" // --summary-only
)

const replayed = 16384 // frames of the capture, of eight SAs

// telling is one kind of output or a peer, and its rounds so far.
type telling struct {
	output    string
	once      func() (took, error)
	cpu, rate []float64
}

// measureReplay passes the same capture through replay's inspector with each kind
// of output, and through each peer, in random order.
func (r *Report) measureReplay(e effort) error {
	text, c, err := replayCapture(replayed)
	if err != nil {
		return err
	}
	var ways []*telling
	for _, output := range []string{Lines, Objects, Copied, Summed} {
		ways = append(ways, &telling{output: output, once: func() (took, error) { return inspected(output, text, c) }})
	}
	readers, closed, err := r.readers(text, c.SAs)
	if err != nil {
		return err
	}
	defer closed()
	for _, p := range readers {
		ways = append(ways, &telling{output: p.Name, once: p.round})
	}
	for i := range e.turns(len(ways), e.replay) {
		w := ways[i]
		t, err := w.once()
		if err != nil {
			return fmt.Errorf("%s: %w", w.output, err)
		}
		w.cpu, w.rate = append(w.cpu, float64(t.cpu)/replayed), append(w.rate, replayed/t.wall.Seconds())
	}
	for _, w := range ways {
		r.Replay.Rows = append(r.Replay.Rows, w.row())
	}
	r.Replay.divide()
	return nil
}

func (t *telling) row() ReplayRow {
	row := ReplayRow{Output: t.output, Size: Standard, CPUSpread: spreadOf(t.cpu), RateSpread: spreadOf(t.rate), Rounds: len(t.cpu)}
	row.CPU, row.Rate = row.CPUSpread.Median, row.RateSpread.Median
	return row
}

func (p *Replay) divide() {
	lines := p.Rows[0]
	p.CPU, p.Rate = lines.CPU, lines.Rate
	for _, row := range p.Rows {
		if row.Output == Tcpdump || row.Output == Tshark {
			p.Ratios[Lines+"/"+row.Output] = lines.CPU / row.CPU
		}
	}
}

// inspected replays the capture once; every frame must be good.
func inspected(output string, text []byte, c *configs.Config) (t took, err error) {
	nic, err := appliance.NewOffline(c)
	if err != nil {
		return t, err
	}
	inspector, err := inspect.New(nic, c, io.Discard, inspect.Options{JSON: output == Objects, Quiet: output == Copied || output == Summed})
	if err != nil {
		return t, err
	}
	frames, err := capture.NewReader(bytes.NewReader(text))
	if err != nil {
		return t, err
	}
	var file *inspect.File
	if output == Copied {
		file = inspect.NewFile("nowhere", nowhere{}, frames, false, nil)
	}
	cpu, wall := processTime(), wallTime()
	if err := inspector.Capture(frames, file, func() error { return nil }); err != nil {
		return t, err
	}
	if err := file.Close(); err != nil {
		return t, err
	}
	t = took{processTime() - cpu, wallTime() - wall}
	if sum := inspector.Summary(); sum.Frames != replayed || sum.Good != replayed {
		return t, fmt.Errorf("%d of %d frames are good, expected %d", sum.Good, sum.Frames, replayed)
	}
	return t, nil
}

type nowhere struct{}

func (nowhere) Write(b []byte) (int, error) { return len(b), nil }
func (nowhere) Close() error                { return nil }

// replayCapture makes a capture of several SAs in turn, and the configuration that
// holds them.
func replayCapture(frames int) ([]byte, *configs.Config, error) {
	packet := forge.UDP(nil, source, sink, make([]byte, Standard-8))
	var text bytes.Buffer
	w, err := capture.NewWriter(&text)
	if err != nil {
		return nil, nil, err
	}
	wire, err := w.Interface("wire", "")
	if err != nil {
		return nil, nil, err
	}
	c := configs.Default()
	var sealers []*outbound.Sealer
	for i := range 8 {
		s := newSA(uint32(0x1001+i), sa.ESP, sa.Transport, Headline)
		sealer, err := outbound.NewSealer(nil, s)
		if err != nil {
			return nil, nil, err
		}
		c.SAs, sealers = append(c.SAs, s), append(sealers, sealer)
	}
	for i := range frames {
		sealed, err := sealers[i%len(sealers)].Seal(nil, packet)
		if err != nil {
			return nil, nil, err
		}
		if err := w.Frame(wire, time.Unix(1700000000, int64(i)*1000), forge.AppendFrame(nil, sealed), ""); err != nil {
			return nil, nil, err
		}
	}
	return text.Bytes(), c, nil
}

func (r *Report) writeReplay(w io.Writer) {
	section(w, "replay, 1400 octets of aes128gcm16, one core: nanoseconds of the processor for a\nframe; tcpdump decrypts nothing", "output\tns\tframes/s\tlines/it\t\n", r.Replay.Rows, func(p ReplayRow) {
		ratio, ok := r.Replay.Ratios[Lines+"/"+p.Output]
		fmt.Fprintf(w, "%s\t%.0f (%.0f-%.0f)\t%.0f\t%s\t\n", p.Output, p.CPU, p.CPUSpread.Q1, p.CPUSpread.Q3, p.Rate, orDash(ok, fmt.Sprintf("%.2f", ratio)))
	})
}
