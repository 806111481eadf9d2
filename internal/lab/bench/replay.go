package bench

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"time"

	"tapsec/appliance"
	"tapsec/capture"
	"tapsec/configs"
	"tapsec/internal/inspect"
	"tapsec/internal/lab/forge"
	"tapsec/internal/outbound"
	"tapsec/sa"
)

// Replay is what a frame of a capture costs with one kind of output, which is
// discarded.
type Replay struct {
	Output string `json:"output"`
	Size   int    `json:"size"` // octets that the innermost IPsec header protects

	CPU        float64 `json:"cpu_ns"` // a frame, of all the process's threads
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

// telling is one kind of output, and its rounds so far.
type telling struct {
	output    string
	cpu, rate []float64
}

// measureReplay passes the same capture through replay's inspector with each kind
// of output, in random order.
func (r *Report) measureReplay(e effort) error {
	text, c, err := replayCapture()
	if err != nil {
		return err
	}
	ways := []*telling{{output: Lines}, {output: Objects}, {output: Copied}, {output: Summed}}
	begin := time.Now()
	for sweep := 0; e.more(sweep, begin, e.replay); sweep++ {
		rand.Shuffle(len(ways), func(i, j int) { ways[i], ways[j] = ways[j], ways[i] })
		for _, w := range ways {
			if err := w.round(text, c); err != nil {
				return fmt.Errorf("%s: %w", w.output, err)
			}
		}
	}
	for _, output := range []string{Lines, Objects, Copied, Summed} {
		for _, w := range ways {
			if w.output == output {
				r.Replay = append(r.Replay, w.row())
			}
		}
	}
	return nil
}

func (t *telling) row() Replay {
	row := Replay{Output: t.output, Size: Standard, CPUSpread: spreadOf(t.cpu), RateSpread: spreadOf(t.rate), Rounds: len(t.cpu)}
	row.CPU, row.Rate = row.CPUSpread.Median, row.RateSpread.Median
	return row
}

// round replays the capture once; every frame must be good.
func (t *telling) round(text []byte, c *configs.Config) error {
	nic, err := appliance.NewOffline(c)
	if err != nil {
		return err
	}
	inspector, err := inspect.New(nic, c, io.Discard, inspect.Options{JSON: t.output == Objects, Quiet: t.output == Copied || t.output == Summed})
	if err != nil {
		return err
	}
	frames, err := capture.NewReader(bytes.NewReader(text))
	if err != nil {
		return err
	}
	var file *inspect.File
	if t.output == Copied {
		file = inspect.NewFile("nowhere", nowhere{}, frames, false, nil)
	}
	cpu, wall := processTime(), wallTime()
	if err := inspector.Capture(frames, file, func() error { return nil }); err != nil {
		return err
	}
	if err := file.Close(); err != nil {
		return err
	}
	cpu, wall = processTime()-cpu, wallTime()-wall
	if sum := inspector.Summary(); sum.Frames != replayed || sum.Good != replayed {
		return fmt.Errorf("%d of %d frames are good, expected %d", sum.Good, sum.Frames, replayed)
	}
	t.cpu, t.rate = append(t.cpu, float64(cpu)/replayed), append(t.rate, replayed/wall.Seconds())
	return nil
}

type nowhere struct{}

func (nowhere) Write(b []byte) (int, error) { return len(b), nil }
func (nowhere) Close() error                { return nil }

// replayCapture makes a capture of several SAs in turn, and the configuration that
// holds them.
func replayCapture() ([]byte, *configs.Config, error) {
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
	for i := range replayed {
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
	if len(r.Replay) == 0 {
		return
	}
	fmt.Fprint(w, "\nreplay, 1400 octets of aes128gcm16, one core: nanoseconds of the processor for a frame\n\n")
	fmt.Fprintln(w, "output\tns\tframes/s\t")
	for _, p := range r.Replay {
		fmt.Fprintf(w, "%s\t%.0f (%.0f-%.0f)\t%.0f\t\n", p.Output, p.CPU, p.CPUSpread.Q1, p.CPUSpread.Q3, p.Rate)
	}
}
