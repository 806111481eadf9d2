package shadow

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"tapsec/internal/mirror"
	"tapsec/internal/wrap"
	"tapsec/sa"
	"tapsec/status"
)

// Report is what a shadow has seen.
type Report struct {
	Interface string            `json:"interface"`
	Seconds   float64           `json:"seconds"`
	Frames    Frames            `json:"frames"`
	SAs       []Row             `json:"sas"`       // with a frame
	Elsewhere []string          `json:"elsewhere"` // names of the SAs without a frame
	XfrmStat  map[string]uint64 `json:"xfrm_stat"` // counters of the namespace's /proc/net/xfrm_stat that have risen
	Agrees    bool              `json:"agrees"`    // on all SAs
}

// Frames are the copies.
type Frames struct {
	Copied  uint64 `json:"copied"`
	Judged  uint64 `json:"judged"`  // an SA matched
	Unknown uint64 `json:"unknown"` // IPsec without an SA in the kernel
	Lost    uint64 `json:"lost"`    // copies that there was no room for
}

// Row is the account of one SA.
type Row struct {
	Name string `json:"name"`
	sa.ID
	Kernel  Counts            `json:"kernel"`
	Tapsec  map[string]Range  `json:"tapsec"`  // by the names of Counts; also malformed and unjudged
	Reasons map[string]uint64 `json:"reasons"` // tapsec's, for the frames it calls bad
	Ended   bool              `json:"ended"`   // the kernel no longer has it
	Window  uint32            `json:"window"`  // the kernel's, in packets
	Differ  []string          `json:"differ"`  // the counts in which kernel and tapsec differ
}

// Counts are the kernel's for an SA.
type Counts struct {
	Took     uint64 `json:"took"`
	BadICV   uint64 `json:"bad_icv"`
	Replayed uint64 `json:"replayed"`
	Late     uint64 `json:"late"`
}

// Range is a number of frames that is known only to lie within bounds.
type Range struct {
	From uint64 `json:"from"`
	To   uint64 `json:"to"`
}

func (r Range) String() string {
	if r.From == r.To {
		return fmt.Sprint(r.From)
	}
	return fmt.Sprintf("%d-%d", r.From, r.To)
}

func (r Range) has(n uint64) bool { return r.From <= n && n <= r.To }

var fateNames = [fates]string{"took", "bad_icv", "replayed", "late", "malformed", "unjudged"}

// begin starts the comparison from the kernel's present counters: what came before is
// forgotten, except sequence numbers.
func (s *Shadow) begin(before map[sa.ID]mirror.Usage) {
	n := 0
	for n < len(s.waiting) && !s.waiting[n].unsure {
		n++
	}
	meanwhile := slices.Clone(s.waiting[n:])
	s.waiting = s.waiting[:n]
	s.judge(time.Now())
	s.waiting = meanwhile
	for _, a := range s.all {
		a.sure, a.maybe = [fates]uint64{}, [fates]uint64{}
		clear(a.reasons)
		if u, there := before[a.ID()]; there {
			a.base, a.kernel = u, u
		}
	}
	s.total, s.began = Frames{Copied: uint64(len(meanwhile))}, time.Now()
}

// report compares with the kernel's counters at the end.
func (s *Shadow) report(after map[sa.ID]mirror.Usage) (*Report, error) {
	lost, err := s.copies.Lost()
	if err != nil {
		return nil, err
	}
	s.total.Lost = lost
	r := &Report{Interface: s.name, Seconds: time.Since(s.began).Seconds(), Frames: s.total, SAs: []Row{}, Elsewhere: []string{}, Agrees: true}
	if r.XfrmStat, err = s.stat.since(); err != nil {
		return nil, err
	}
	for _, a := range s.all {
		if u, there := after[a.ID()]; there && a.deleted.IsZero() {
			a.kernel = u
		}
		row := a.row(lost)
		if a.sure == [fates]uint64{} && a.maybe == [fates]uint64{} {
			r.Elsewhere = append(r.Elsewhere, row.Name)
			continue
		}
		r.SAs = append(r.SAs, row)
		r.Agrees = r.Agrees && len(row.Differ) == 0
	}
	return r, nil
}

// row compares an SA's counts. A copy that was lost, or that tapsec leaves alone, may
// count as anything.
func (a *account) row(lost uint64) Row {
	k, b := &a.kernel, &a.base
	row := Row{Name: a.Name, ID: a.ID(), Tapsec: map[string]Range{}, Reasons: map[string]uint64{}, Ended: !a.deleted.IsZero(), Window: k.Window, Differ: []string{},
		Kernel: Counts{k.Packets - b.Packets, k.BadICV - b.BadICV, k.Replayed - b.Replayed, k.Late - b.Late}}
	for f, name := range fateNames {
		row.Tapsec[name] = Range{a.sure[f], a.sure[f] + a.maybe[f]}
	}
	for reason, n := range a.reasons {
		row.Reasons[reason.String()] = n
	}
	spare := lost + row.Tapsec["unjudged"].To
	counts := [...]uint64{took: row.Kernel.Took, badICV: row.Kernel.BadICV, replayed: row.Kernel.Replayed, late: row.Kernel.Late}
	if a.smallWindow() {
		counts[took] += counts[replayed] + counts[late]
		counts[replayed], counts[late] = 0, 0
	}
	for f, n := range counts {
		within := row.Tapsec[fateNames[f]]
		if within.To += spare; !within.has(n) {
			row.Differ = append(row.Differ, fateNames[f])
		}
	}
	return row
}

// WriteText writes a table, and a sentence for each SA with dropped frames or different
// counts.
func (r *Report) WriteText(w io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%.1f s on %s: %d frames copied, %d judged, %d of SAs that the kernel has not\n", r.Seconds, r.Interface, r.Frames.Copied, r.Frames.Judged, r.Frames.Unknown)
	if r.Frames.Lost > 0 {
		fmt.Fprintf(&b, "copies lost: %d; each may have been anything\n", r.Frames.Lost)
	}
	if len(r.SAs) > 0 {
		b.WriteString("\n")
		fmt.Fprintf(&b, line, "SA", "took", "bad ICV", "replayed", "late", "malformed", "left alone")
		for i := range r.SAs {
			r.SAs[i].table(&b)
		}
		b.WriteString("\n")
	}
	for i := range r.SAs {
		for _, sentence := range r.SAs[i].sentences() {
			b.WriteString(wrap.Text(sentence, 2, wrap.Width) + "\n")
		}
	}
	for _, name := range slices.Sorted(maps.Keys(r.XfrmStat)) {
		fmt.Fprintf(&b, "the kernel's %s has risen by %d\n", name, r.XfrmStat[name])
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// line is a line of the table, of words or numbers.
const line = "%-8v %17v %8v %9v %6v %10v %11v\n"

func (row *Row) table(w io.Writer) {
	k, t := &row.Kernel, row.Tapsec
	fmt.Fprintf(w, "%s\n"+line, row.Name, "  kernel", k.Took, k.BadICV, k.Replayed, k.Late, "-", "-")
	fmt.Fprintf(w, line, "  tapsec", t["took"], t["bad_icv"], t["replayed"], t["late"], t["malformed"], t["unjudged"])
}

// sentences say what became of the frames of an SA that the kernel dropped.
func (row *Row) sentences() (all []string) {
	k := &row.Kernel
	if dropped := k.BadICV + k.Replayed + k.Late; dropped > 0 {
		var kinds []string
		for _, one := range []struct {
			fate fate
			what string
		}{{badICV, "have a wrong ICV"}, {replayed, "came before"}, {late, "are older than its window"}} {
			if n := row.Tapsec[fateNames[one.fate]]; n.To > 0 {
				kinds = append(kinds, fmt.Sprintf("%s %s", n, one.what))
			}
		}
		all = append(all, fmt.Sprintf("the kernel dropped %d frames of %s; %s", dropped, row.Name, cmp.Or(strings.Join(kinds, ", "), "tapsec finds nothing wrong with any")))
	}
	if n := row.Tapsec["malformed"]; n.To > 0 {
		all = append(all, fmt.Sprintf("malformed frames of %s, which the kernel counts for no SA: %s (%s)", row.Name, n, row.malformed()))
	}
	if len(row.Differ) > 0 {
		all = append(all, fmt.Sprintf("%s: kernel and tapsec differ in %s", row.Name, strings.Join(row.Differ, ", ")))
	}
	return all
}

// malformed names the reasons other than a wrong ICV, with their counts.
func (row *Row) malformed() string {
	var all []string
	for _, name := range slices.Sorted(maps.Keys(row.Reasons)) {
		if name != status.ESPICV.String() && name != status.AHICV.String() {
			all = append(all, fmt.Sprintf("%s %d", name, row.Reasons[name]))
		}
	}
	return strings.Join(all, ", ")
}
