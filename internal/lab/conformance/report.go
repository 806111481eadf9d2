package conformance

import (
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"unicode/utf8"

	"tapsec/internal/wrap"
)

// Report is what a NIC was found to do.
type Report struct {
	NIC     string // which NIC was judged, and by whom
	Results []Result
}

// Totals are numbers of cases.
type Totals struct {
	Passed int `json:"passed"`
	Failed int `json:"failed"`
	NotRun int `json:"not_run"`
}

func (t Totals) String() string {
	s := fmt.Sprintf("%d passed, %d failed", t.Passed, t.Failed)
	if t.NotRun > 0 {
		s += fmt.Sprintf(", %d not run", t.NotRun)
	}
	return s
}

func (t *Totals) take(r *Result) {
	switch {
	case r.Passed():
		t.Passed++
	case errors.Is(r.Differs, ErrNotRun):
		t.NotRun++
	default:
		t.Failed++
	}
}

// Totals counts the results.
func (r *Report) Totals() (t Totals) {
	for i := range r.Results {
		t.take(&r.Results[i])
	}
	return t
}

// bySource is the part of a report that one source asked for.
type bySource struct {
	Source
	Totals
	results []*Result
}

// sources groups the results, in the order in which sources first occur.
func (r *Report) sources() (all []*bySource) {
	known := map[string]*bySource{}
	for i := range r.Results {
		one := &r.Results[i]
		s := known[one.Source.Name]
		if s == nil {
			s = &bySource{Source: one.Source}
			known[s.Name] = s
			all = append(all, s)
		}
		s.take(one)
		s.results = append(s.results, one)
	}
	return all
}

// outcome is the result in a word.
func (r *Result) outcome() string {
	var t Totals
	switch t.take(r); {
	case t.Passed > 0:
		return "passed"
	case t.NotRun > 0:
		return "not run"
	}
	return "FAILED"
}

// Form is how a report is printed: for people, unless it says otherwise.
type Form struct {
	JSON, JUnit  bool
	OnlyFailures bool // for people: no lines for cases that passed
}

// Write prints a report in a form.
func (r *Report) Write(w io.Writer, f Form) error {
	switch {
	case f.JSON:
		return r.writeJSON(w)
	case f.JUnit:
		return r.writeJUnit(w)
	}
	return r.writeText(w, f.OnlyFailures)
}

// writeText prints a report for people: a line for each case, or only for those that did not
// pass, with what differs beneath it; then a line for each source, and the totals.
func (r *Report) writeText(w io.Writer, onlyFailures bool) error {
	var b strings.Builder
	fmt.Fprintf(&b, "judged: %s\n\n%-7s %-8s %-16s %-19s %s\n", r.NIC, "outcome", "expected", "", "source", "frame")
	for i := range r.Results {
		one := &r.Results[i]
		if onlyFailures && one.Passed() {
			continue
		}
		b.WriteString(columns(fmt.Sprintf("%-7s %-8s %-16s %-19s", one.outcome(), one.Word, one.Reason, one.asked()), one.Title))
		if !one.Passed() {
			for line := range strings.Lines(one.Differs.Error()) {
				fmt.Fprintf(&b, "        %s\n", wrap.Text(strings.TrimSpace(line), 10, wrap.Width-8))
			}
		}
	}
	fmt.Fprintf(&b, "\n%6s %6s  %-20s\n", "passed", "failed", "source")
	for _, s := range r.sources() {
		b.WriteString(columns(fmt.Sprintf("%6d %6d  %-20s", s.Passed, s.Failed, s.Name), s.Text))
	}
	r.writeKinds(&b)
	fmt.Fprintf(&b, "\n%s\n", r.Totals())
	_, err := io.WriteString(w, b.String())
	return err
}

// writeKinds prints what failing cases have in common, the most frequent first.
func (r *Report) writeKinds(b *strings.Builder) {
	count := map[string]int{}
	for i := range r.Results {
		if one := &r.Results[i]; one.outcome() == "FAILED" {
			count[one.kind()]++
		}
	}
	if len(count) == 0 {
		return
	}
	kinds := slices.Sorted(maps.Keys(count))
	slices.SortStableFunc(kinds, func(x, y string) int { return count[y] - count[x] })
	fmt.Fprintf(b, "\n%6s  how\n", "failed")
	for _, k := range kinds {
		fmt.Fprintf(b, "%6d  %s\n", count[k], wrap.Text(k, 8, wrap.Width-8))
	}
}

// kind is how a case failed, without what only this one has: of the differences, what differs.
func (r *Result) kind() string {
	var what []string
	for line := range strings.Lines(r.Differs.Error()) {
		name, _, values := strings.Cut(strings.TrimSpace(line), ": found ")
		if values {
			name, _, _ = strings.Cut(name, " from byte ") // of the frame
			name = "other " + map[string]string{"word": "word", "reason": "reason", "records": "records", "frame": "bytes"}[name]
		}
		what = append(what, name)
	}
	return strings.Join(what, ", ")
}

// columns puts a text after the others or, if it is too long, beneath them.
func columns(others, text string) string {
	if utf8.RuneCountInString(others)+1+utf8.RuneCountInString(text) > wrap.Width {
		const indent = 8
		return strings.TrimRight(others, " ") + "\n        " + wrap.Text(text, indent, wrap.Width-indent) + "\n"
	}
	return others + " " + text + "\n"
}

// asked is the source and, in the contract's table, the row.
func (c *Case) asked() string {
	if c.Row == "" {
		return c.Source.Name
	}
	return c.Source.Name + " row " + c.Row
}

// saidJSON is what a NIC says, or must say, of a frame.
type saidJSON struct {
	Word    string   `json:"word"`
	Reason  string   `json:"reason"`
	Records []string `json:"records,omitempty"`
}

type resultJSON struct {
	Source   string    `json:"source"`
	Row      string    `json:"row,omitempty"`
	Case     string    `json:"case"`
	Setup    string    `json:"setup"`
	Outcome  string    `json:"outcome"`
	Expected saidJSON  `json:"expected"`
	Found    *saidJSON `json:"found,omitempty"`
	Differs  string    `json:"differs,omitempty"`
}

type sourceJSON struct {
	Name string `json:"name"`
	Text string `json:"text"`
	Totals
}

// Document is a report in JSON (docs/json.md).
type Document struct {
	Judged string `json:"judged"`
	Totals
	Sources []sourceJSON `json:"sources"`
	Results []resultJSON `json:"results"`
}

// writeJSON prints a report as one object: passed, failed and not_run, the
// sources with theirs, and an object for each result.
func (r *Report) writeJSON(w io.Writer) error { return json.NewEncoder(w).Encode(r.document()) }

func (r *Report) document() *Document {
	d := &Document{Judged: r.NIC, Totals: r.Totals()}
	for _, s := range r.sources() {
		d.Sources = append(d.Sources, sourceJSON{s.Name, s.Text, s.Totals})
	}
	for i := range r.Results {
		d.Results = append(d.Results, r.Results[i].object())
	}
	return d
}

func (r *Result) object() resultJSON {
	o := resultJSON{
		Source: r.Source.Name, Row: r.Row, Case: r.Title, Setup: r.Setup, Outcome: strings.ToLower(r.outcome()),
		Expected: saidJSON{r.Word.String(), r.Reason.String(), r.Records},
	}
	if r.Seen.WireLen > 0 {
		o.Found = &saidJSON{r.Seen.Word.String(), r.Seen.Reason.String(), records(&r.Seen)}
	}
	if !r.Passed() {
		o.Differs = r.Differs.Error()
	}
	return o
}

type junitCase struct {
	Class   string  `xml:"classname,attr"`
	Name    string  `xml:"name,attr"`
	Failure *string `xml:"failure"`
	Skipped *string `xml:"skipped"`
}

type junitSuite struct {
	Name     string      `xml:"name,attr"`
	Tests    int         `xml:"tests,attr"`
	Failures int         `xml:"failures,attr"`
	Skipped  int         `xml:"skipped,attr"`
	Cases    []junitCase `xml:"testcase"`
}

// writeJUnit prints a report as JUnit's XML, a suite for each source.
func (r *Report) writeJUnit(w io.Writer) error {
	suites := struct {
		XMLName  xml.Name     `xml:"testsuites"`
		Name     string       `xml:"name,attr"`
		Tests    int          `xml:"tests,attr"`
		Failures int          `xml:"failures,attr"`
		Suites   []junitSuite `xml:"testsuite"`
	}{Name: r.NIC, Tests: len(r.Results), Failures: r.Totals().Failed}
	for _, s := range r.sources() {
		suite := junitSuite{Name: s.Name, Tests: len(s.results), Failures: s.Failed, Skipped: s.NotRun}
		for _, one := range s.results {
			suite.Cases = append(suite.Cases, one.junit())
		}
		suites.Suites = append(suites.Suites, suite)
	}
	if _, err := io.WriteString(w, xml.Header); err != nil {
		return err
	}
	e := xml.NewEncoder(w)
	e.Indent("", " ")
	if err := e.Encode(suites); err != nil {
		return err
	}
	_, err := io.WriteString(w, "\n")
	return err
}

func (r *Result) junit() junitCase {
	c := junitCase{Class: r.asked(), Name: r.Title}
	if r.Passed() {
		return c
	}
	text := r.Differs.Error()
	if errors.Is(r.Differs, ErrNotRun) {
		c.Skipped = &text
	} else {
		c.Failure = &text
	}
	return c
}
