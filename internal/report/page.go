package report

import (
	"cmp"
	_ "embed"
	"fmt"
	"html/template"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"tapsec/internal/account"
	"tapsec/internal/explain"
	"tapsec/internal/inspect"
	"tapsec/internal/page"
)

//go:embed page.html
var source string

var pageTemplate = template.Must(template.New("page").Funcs(template.FuncMap{"class": class}).Parse(source))

// sheet is what the template shows.
type sheet struct {
	Title     string
	Style     template.CSS
	Sum       *inspect.Summary
	Sentence  string
	Bars      []bar
	Span      string // of time
	Width     string // of a bar
	Rows      []row
	Tracks    []chart
	Undrawn   int // SAs without a chart
	Failures  []told
	More      uint64 // headers that no SA matches and that have no row
	NotTold   string // why failures are not explained; empty if they are
	Verdicts  []account.Verdict
	PlotWidth float64
}

// bar is one piece of a stack: the frames of one verdict in one span of time.
type bar struct {
	X, Y, W, H float64
	Class      string
	Title      string
}

type row struct {
	account.Row
	Failures string
	Fails    bool
}

// chart is an SA's numbers against time.
type chart struct {
	Name    string
	Path    string // of the highest number
	Band    string // the window beneath it
	Window  uint32
	Points  []dot
	Low     string
	High    string
	Span    string
	Missing uint64
}

type dot struct {
	X, Y  float64
	Class string
	Title string
}

type told struct {
	Frame  int
	Reason string
	Text   string
}

// Size of the plots, in units of the page.
const (
	plotWidth  = 960.0
	barsHeight = 140.0
	dotsHeight = 180.0
)

// Write writes the page. explained are the frames that Explain asked for; notTold says why
// there are none.
func (r *Report) Write(w io.Writer, title string, sum *inspect.Summary, explained []*explain.Frame, notTold string) error {
	p := sheet{Title: title, Style: page.Style(), Sum: sum, Sentence: sum.String(), NotTold: notTold, Verdicts: stacked, PlotWidth: plotWidth}
	p.Bars, p.Span, p.Width = r.bins.bars()
	rows, more := sum.Rows(maxStrays)
	for _, s := range rows {
		one := row{Row: s}
		for _, reason := range slices.Sorted(maps.Keys(s.Failed)) {
			one.Failures += fmt.Sprintf("%s %d ", reason, s.Failed[reason])
			one.Fails = true
		}
		p.Rows = append(p.Rows, one)
	}
	p.More = more
	p.Tracks, p.Undrawn = r.charts(sum)
	for _, f := range explained {
		var text strings.Builder
		if err := f.Text(&text, title, false); err != nil {
			return err
		}
		p.Failures = append(p.Failures, told{f.Number, f.Trailer.Reason.Qualified() + ": " + f.Trailer.Reason.Sentence(), text.String()})
	}
	return pageTemplate.Execute(w, &p)
}

// class is the CSS class of a verdict.
func class(verdict string) string {
	return strings.NewReplacer(", ", "-", " ", "-").Replace(strings.ToLower(verdict))
}

func (b *bins) bars() (bars []bar, span, width string) {
	most := uint64(1)
	for _, c := range b.count {
		most = max(most, c[0]+c[1]+c[2]+c[3]+c[4])
	}
	wide := plotWidth / float64(max(1, len(b.count)))
	for i, c := range b.count {
		y := barsHeight
		for _, v := range stacked {
			n := c[v]
			if n == 0 {
				continue
			}
			h := float64(n) / float64(most) * barsHeight
			y -= h
			at := b.from.Add(time.Duration(i) * b.width).UTC().Format("15:04:05.000")
			bars = append(bars, bar{float64(i) * wide, y, max(wide-0.5, 0.5), h, class(v.String()), fmt.Sprintf("%s: %d %s", at, n, v)})
		}
	}
	if len(b.count) > 0 {
		span = fmt.Sprintf("%s UTC, %s", b.from.UTC().Format("2006-01-02 15:04:05.000"), (time.Duration(len(b.count)) * b.width).Round(time.Millisecond))
	}
	return bars, span, b.width.String()
}

// charts draws the SAs with failures first, then those with the most frames.
func (r *Report) charts(sum *inspect.Summary) (all []chart, undrawn int) {
	window := map[uint32]uint32{}
	for _, s := range sum.SAs {
		window[s.Handle] = s.Window
	}
	handles := slices.SortedFunc(maps.Keys(r.tracks), func(a, b uint32) int {
		x, y := r.tracks[a], r.tracks[b]
		return cmp.Or(cmp.Compare(len(y.notable), len(x.notable)), cmp.Compare(y.frames, x.frames), cmp.Compare(a, b))
	})
	for _, h := range handles[:min(maxDrawn, len(handles))] {
		all = append(all, r.tracks[h].chart(window[h]))
	}
	return all, len(handles) - len(all)
}

// frame is the range of times and numbers that a chart shows.
type frame struct {
	from, to  time.Time
	low, high uint64
}

func (k *track) frame() frame {
	f := frame{low: ^uint64(0)}
	for _, p := range slices.Concat(k.points, k.notable) {
		if f.from.IsZero() || p.at.Before(f.from) {
			f.from = p.at
		}
		if p.at.After(f.to) {
			f.to = p.at
		}
		f.low, f.high = min(f.low, p.number), max(f.high, p.number)
	}
	return f
}

func (f *frame) place(p point) (x, y float64) {
	if d := f.to.Sub(f.from); d > 0 {
		x = float64(p.at.Sub(f.from)) / float64(d) * plotWidth
	}
	if f.high > f.low {
		y = float64(p.number-f.low) / float64(f.high-f.low) * dotsHeight
	}
	return x, dotsHeight - y
}

func (k *track) chart(window uint32) chart {
	f := k.frame()
	c := chart{Name: k.name, Window: window, Missing: k.missing, Low: fmt.Sprint(f.low), High: fmt.Sprint(f.high)}
	if c.Span = "the capture has no times"; !f.to.IsZero() {
		c.Span = fmt.Sprintf("%s to %s UTC", f.from.UTC().Format("15:04:05.000"), f.to.UTC().Format("15:04:05.000"))
	}
	for _, p := range slices.Concat(k.points, k.notable) {
		x, y := f.place(p)
		c.Points = append(c.Points, dot{x, y, class(p.verdict), fmt.Sprintf("frame %d, number %d: %s", p.frame, p.number, p.verdict)})
	}
	var top, bottom []string
	for _, p := range k.tops {
		x, y := f.place(p)
		top = append(top, fmt.Sprintf("%.1f,%.1f", x, y))
		low := p
		low.number = max(f.low, p.number-min(p.number, uint64(window)))
		x, y = f.place(low)
		bottom = append(bottom, fmt.Sprintf("%.1f,%.1f", x, y))
	}
	slices.Reverse(bottom)
	c.Path, c.Band = strings.Join(top, " "), strings.Join(append(top, bottom...), " ")
	return c
}
