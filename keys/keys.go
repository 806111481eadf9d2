// Package keys reads security associations from the texts of other tools, and
// writes them for other tools: the output of `ip xfrm state` and the commands
// that make such states, Wireshark's table esp_sa, and (read only) the log of
// strongSwan's charon, the output of setkey -D and commands for setkey, and what FortiGate and RouterOS print.
//
// What tapsec does not have (IPComp, BEET, unknown algorithms) is skipped with a note, and notes
// say what of an SA cannot be taken over. No error and no note holds a key; only the functions
// named Write show keys, and only to the writer that they are given.
package keys

import (
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"time"

	"tapsec/sa"
)

// Format is a kind of text that may hold SAs.
type Format int

// The formats.
const (
	Unknown   Format = iota
	XFRM             // output of `ip xfrm state` or `ip xfrm monitor`, or commands `ip xfrm state add`
	ESPSA            // Wireshark's table of ESP SAs, esp_sa in a profile
	Charon           // log of strongSwan's charon that shows keys (chd = 4)
	Setkey           // output of `setkey -D`, or commands for setkey
	FortiGate        // output of FortiGate's `diagnose vpn tunnel list`
	RouterOS         // output of RouterOS's `/ip ipsec installed-sa print detail`
	YAML             // tapsec's own configuration; package configs reads it
)

// ErrFormat says that a text is in none of the formats that Read knows.
var ErrFormat = errors.New("expected a configuration, the output of ip xfrm state, setkey -D, FortiGate's diagnose vpn tunnel list or RouterOS's installed-sa print detail, a Wireshark esp_sa table or charon's log")

var (
	xfrmStart = regexp.MustCompile(`(?m)^\s*(?:\[[\d:.T-]+\] )?(?:(?:Updated|Deleted|Expired) )?src \S+ dst \S+\s*\\?|` +
		`^[^#\n]*\bip\b[^#\n]*\sx(?:f|fr|frm)?\s+(?:s|st|sta|stat|state|sa)\s+(?:a|ad|add|u|up|upd|upda|updat|update)\s|^[^#\n]*\bxfrm state (?:add|update)\s`)
	espSAStart     = regexp.MustCompile(`(?m)^\s*"(?:IPv[46]|Any)"\s*,`)
	setkeyStart    = regexp.MustCompile(`(?m)^\s+(?:esp|ah|esp-udp|ipcomp) mode=\w+ spi=\d+\(0x[0-9a-f]+\)|` + setkeyAdd.String())
	fortiGateStart = regexp.MustCompile(`(?m)(?:^|\s)(?:dec|enc): spi=[0-9a-f]{8} esp=`)
	yamlStart      = regexp.MustCompile(`(?m)^["']?[a-z_]+["']?\s*:|^\s*\{|^---`)
)

// starts are how texts of each form begin somewhere, in the order in which they are
// looked for: charon's first, since a log may be long and tell of anything. Each is found
// within one line, which has one of the words.
var starts = []start{
	{Charon, charonStart, []string{"[CFG", "[CHD", "[DMN", "[ENC", "[IKE", "[JOB", "[KNL", "[LIB", "[NET"}},
	{XFRM, xfrmStart, []string{"src ", "xfrm state", " xf", "\txf", "\fxf", "x ", "x\t", "x\f"}},
	{ESPSA, espSAStart, []string{`"IPv`, `"Any"`}},
	{Setkey, setkeyStart, []string{" mode=", "add ", "add\t", "update"}},
	{FortiGate, fortiGateStart, []string{"c: spi="}},
	{RouterOS, routerOSFlags, []string{"src-address="}},
	{Unknown, pskStart, []string{"PSK"}},
	{YAML, yamlStart, []string{":", "{", "---"}},
}

type start struct {
	form  Format
	line  *regexp.Regexp
	words []string
}

// in searches the lines of a text that have one of the words.
func (s *start) in(text string) bool {
	for _, word := range s.words {
		for rest := text; ; {
			before, behind, found := strings.Cut(rest, word)
			if !found {
				break
			}
			end, next, _ := strings.Cut(behind, "\n")
			if s.line.MatchString(before[strings.LastIndexByte(before, '\n')+1:] + word + end) {
				return true
			}
			rest = next
		}
	}
	return false
}

// unbroken is a text whose lines end where commands do.
func unbroken(data []byte) string { return strings.ReplaceAll(plainText(data), "\\\n", " ") }

// Detect finds out which format a text is in.
func Detect(data []byte) Format {
	text := unbroken(data)
	for _, s := range starts {
		if !s.in(text) {
			continue
		}
		if s.form == YAML && (withoutKeys(text) != "" || uatOption.MatchString(text)) {
			return Unknown
		}
		return s.form
	}
	return Unknown
}

// Read reads the SAs of a text. They check padding, and their offload is preferred. The name
// stands in errors, which wrap ErrFormat.
func Read(name string, data []byte) (*SAs, error) {
	form := Detect(data)
	parse := forms[form].parse
	if parse == nil {
		return nil, fmt.Errorf("%s: %w, %s", name, ErrFormat, instead(form, data))
	}
	l := list{names: map[string]bool{}, ids: map[sa.ID]int{}, ended: map[string]bool{}, born: map[string]time.Time{}, lost: map[string][]string{}, open: map[string][]string{}}
	f := parse(plainText(data))
	l.Notes = f.notes
	for _, p := range f.all {
		l.add(p)
	}
	sas := l.finish(form)
	for text, i := unbroken(data), 0; i < len(starts); i++ {
		if other := starts[i].form; other != form && forms[other].parse != nil && starts[i].in(text) {
			sas.Notes = append(sas.Notes, fmt.Sprintf("it also holds what looks like %s, which is not read beside %s: give each a file of its own", other, form))
		}
	}
	return sas, nil
}

// SAs are those of a text, oldest first: of several that fit, the last one seals.
type SAs struct {
	All        []*sa.SA
	Notes      []string // what was left out or assumed
	Ended      []string // names of SAs that the text says have ended
	Unnumbered []string // names of SAs that may be running, whose present numbers the text does not tell
	Former     []Former // earlier SAs with the identity of one of All, and other keys
}

// found is what a parser gives: SAs, oldest first.
type found struct {
	all   []parsed
	notes []string
}

// parsed is one SA of a text, or the reason for leaving it out.
type parsed struct {
	*sa.SA
	line     int
	err      error
	numbered bool      // the text tells its present numbers, or it is new
	updates  bool      // it replaces the one that was there
	ended    bool      // it has ended
	closed   bool      // likewise, without a note
	removes  verb      // a command that ends SAs
	expires  bool      // a lifetime of it is over, the hard one if it has ended
	at       time.Time // when that was; zero if the text has no times
	lost     []string  // what cannot be taken over of it
	doubts   []string  // what the text leaves open, and how it is taken
}

// cut says that a text ended in an SA's key, if it did.
func (p *parsed) cut(ended bool) {
	if ended {
		p.doubts = append(p.doubts, "the text ends in the key, which may be cut short")
	}
}

// windowOf takes a replay window over, if an SA may have one of that size.
func (p *parsed) windowOf(packets uint64) {
	switch {
	case sa.ValidWindow(packets):
		p.Window = uint32(packets)
	case packets != 0:
		p.lost = append(p.lost, fmt.Sprintf("a replay window of %d packets", packets))
	}
}

func newSA() *sa.SA { return &sa.SA{PadCheck: true, Offload: sa.Preferred, Window: sa.DefaultWindow} }

// said is a note on a line of the text.
type said struct {
	line int
	text string
}

// list collects SAs under names of their own, each identity once.
type list struct {
	SAs
	lines []said
	at    []int // lines of All
	names map[string]bool
	ids   map[sa.ID]int // places in All
	ended map[string]bool
	born  map[string]time.Time // if the text has times
	lost  map[string][]string  // names by what cannot be taken over
	open  map[string][]string  // names by what the text leaves open
}

func (l *list) add(p parsed) {
	at, there := l.ids[p.ID()]
	if p.removes != addVerb {
		l.remove(p, at, there)
		return
	}
	if there && p.ended {
		l.end(l.All[at].Name, p)
		return
	}
	err := p.mistake()
	replaces := there && (p.updates || l.ended[l.All[at].Name])
	if err == nil && there && !replaces {
		err = fmt.Errorf("that of line %d has the same protocol, SPI and addresses%s", l.at[at], otherKeys(l.All[at], p.SA))
		l.Former = append(l.Former, Former{SA: p.SA})
	}
	if p.Name = l.name(p.SA); replaces {
		p.Name = l.All[at].Name
	}
	if err != nil {
		l.note(p.line, "%s skipped: %v", p.Name, err)
		return
	}
	if replaces {
		l.succeed(at, p)
		l.at[at] = p.line
	} else {
		l.ids[p.ID()], l.names[p.Name] = len(l.All), true
		l.All, l.at = append(l.All, p.SA), append(l.at, p.line)
	}
	l.remember(p)
}

// remove ends the SA of a command, which is there or unknown, or all.
func (l *list) remove(p parsed, at int, there bool) {
	switch {
	case p.removes == flushVerb:
		before := len(l.ended)
		for _, s := range l.All {
			if p.covers(s) {
				l.ended[s.Name] = true
			}
		}
		if n := len(l.ended) - before; n > 0 {
			l.note(p.line, "the SAs before it have ended (%d); they open what a capture holds of them", n)
		}
	case there && !l.ended[l.All[at].Name]:
		l.end(l.All[at].Name, p)
	}
}

// covers reports whether a flush with the filter p removes an SA.
func (p *parsed) covers(s *sa.SA) bool {
	return (p.Protocol == 0 || p.Protocol == s.Protocol) && (!p.Dst.IsValid() || p.Dst == s.Dst) && (!p.Src.IsValid() || p.Src == s.Src)
}

// otherKeys says of two SAs with one identity if they are not the same.
func otherKeys(a, b *sa.SA) string {
	if a.EncryptionKey.Equal(b.EncryptionKey) && a.IntegrityKey.Equal(b.IntegrityKey) {
		return ""
	}
	return ", but other keys"
}

// mistake is the reason for leaving an SA out, nil where it can be held.
func (p *parsed) mistake() error {
	if p.err != nil {
		return p.err
	}
	if bad := p.Check(false, true); len(bad) > 0 {
		return bad[0]
	}
	if p.EncryptionKey.Redacted() || p.IntegrityKey.Redacted() {
		return errRedacted
	}
	return nil
}

// remember keeps what is to be said of an SA that was taken.
func (l *list) remember(p parsed) {
	delete(l.ended, p.Name)
	if !p.at.IsZero() {
		l.born[p.Name] = p.at
	}
	if p.ended {
		l.end(p.Name, p)
	}
	if p.closed {
		l.ended[p.Name] = true
	}
	if !p.numbered {
		l.Unnumbered = append(l.Unnumbered, p.Name)
	}
	for _, what := range slices.Compact(slices.Sorted(slices.Values(p.lost))) {
		l.lost[what] = append(l.lost[what], p.Name)
	}
	for _, what := range slices.Compact(slices.Sorted(slices.Values(p.doubts))) {
		l.open[what] = append(l.open[what], p.Name)
	}
}

func (l *list) end(name string, p parsed) {
	when := ""
	if !p.at.IsZero() {
		when = " at " + clock(p.at)
	}
	if born, ok := l.born[name]; ok && !p.at.IsZero() {
		when += ", and began at " + clock(born)
	}
	l.ended[name] = true
	l.note(p.line, "%s has ended%s; it opens what a capture holds of it", name, when)
}

func (l *list) note(line int, format string, args ...any) {
	l.lines = append(l.lines, said{line, Redact(fmt.Sprintf("line %d: "+format, append([]any{line}, args...)...))})
}

// finish adds the last notes.
func (l *list) finish(form Format) *SAs {
	slices.SortStableFunc(l.lines, func(a, b said) int { return a.line - b.line })
	for _, note := range l.lines {
		l.Notes = append(l.Notes, note.text)
	}
	l.Notes = append(l.Notes, ofSAs(" cannot be held and is left out", l.lost)...)
	l.Notes = append(l.Notes, ofSAs("", l.open)...)
	if len(l.All) == 0 && len(l.lines) == 0 && form == XFRM {
		l.Notes = append(l.Notes, "no state was found, whose lines are apart: src ADDRESS dst ADDRESS, then one for each property; "+
			"nor a command ip xfrm state add outside of quotes. Give what ip xfrm state prints for root")
	}
	for _, s := range l.All {
		if l.ended[s.Name] {
			l.Ended = append(l.Ended, s.Name)
		}
	}
	return &l.SAs
}

var errRedacted = errors.New("its key is all zeros: a kernel under lockdown shows no keys (kernel_lockdown(7)); take them from the IKE daemon, or where lockdown is off")

func (l *list) name(s *sa.SA) string {
	return Name(s, func(name string) bool { return l.names[name] })
}

// Name names an SA after its SPI, and after its addresses where that is taken.
func Name(s *sa.SA, taken func(string) bool) string {
	proto := s.Protocol.String()
	if s.Protocol == 0 {
		proto = "sa"
	}
	name := fmt.Sprintf("%s-%08x", proto, s.SPI)
	for _, a := range []netip.Addr{s.Dst, s.Src} {
		if taken(name) && a.IsValid() {
			name += "-" + a.String()
		}
	}
	return name
}

// hexRun is what looks like a key anywhere: 16 or more hexadecimal digits, in one piece or byte
// by byte.
var hexRun = regexp.MustCompile(`(?i)(0x)?([0-9a-f]{16,}|[0-9a-f]{2}([ :_-][0-9a-f]{2}){7,})`)

// Redact masks everything in a message that looks like a key.
func Redact(text string) string { return hexRun.ReplaceAllStringFunc(text, Mask) }

// Mask shows how many bytes a hexadecimal key has, and nothing else.
func Mask(value string) string {
	digits := 0
	for _, c := range strings.TrimPrefix(strings.ToLower(strings.Trim(value, `"' `)), "0x") {
		if strings.ContainsRune("0123456789abcdef", c) {
			digits++
		}
	}
	return fmt.Sprintf("<key, %d bytes>", digits/2)
}
