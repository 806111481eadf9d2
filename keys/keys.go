// Package keys reads security associations from the texts of other tools, and
// writes them for other tools: the output of `ip xfrm state` and the commands
// that make such states, Wireshark's table esp_sa, and (read only) the log of
// strongSwan's charon.
//
// What such a text has and tapsec has not (IPComp, BEET, unknown algorithms) is
// skipped with a note. No error and no note holds a key; only the functions
// named Write show keys, and only to the writer that they are given.
package keys

import (
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"strings"

	"tapsec/sa"
)

// Format is a kind of text that may hold SAs.
type Format int

// The formats.
const (
	Unknown Format = iota
	XFRM           // output of `ip xfrm state`, with or without -s, or commands `ip xfrm state add`
	ESPSA          // Wireshark's table of ESP SAs, esp_sa in a profile
	Charon         // log of strongSwan's charon that shows keys (chd = 4)
	YAML           // tapsec's own configuration; package configs reads it
)

// ErrFormat says that a text is in none of the formats that Read knows.
var ErrFormat = errors.New("expected a configuration, the output of ip xfrm state, a Wireshark esp_sa table or charon's log")

var (
	xfrmStart  = regexp.MustCompile(`(?m)^src \S+ dst \S+|^[^#\n]*\bxfrm state (add|update)\s`)
	espSAStart = regexp.MustCompile(`(?m)^\s*"IPv[46]"\s*,`)
	yamlStart  = regexp.MustCompile(`(?m)^["']?[a-z_]+["']?\s*:|^\s*\{|^---`)
)

// Detect finds out which format a text is in.
func Detect(data []byte) Format {
	switch {
	case charonStart.Match(data): // first, since a log may be long and tell of anything
		return Charon
	case xfrmStart.Match(data):
		return XFRM
	case espSAStart.Match(data):
		return ESPSA
	case yamlStart.Match(data):
		return YAML
	}
	return Unknown
}

// Read gives the SAs of a text and notes on what it left out or assumed. The
// SAs check their padding and are offloaded where the NIC can. The name stands
// in errors, which wrap ErrFormat.
func Read(name string, data []byte) ([]*sa.SA, []string, error) {
	var found []parsed
	l := list{names: map[string]bool{}, ids: map[sa.ID]bool{}}
	switch Detect(data) {
	case XFRM:
		found = parseXFRM(string(data))
	case ESPSA:
		found = parseESPSA(string(data))
		l.notes = append(l.notes, "the table does not say the modes of its SAs; tunnel is assumed")
	case Charon:
		found = parseCharon(string(data))
	case YAML:
		return nil, nil, fmt.Errorf("%s: %w; this is a configuration, which package configs reads", name, ErrFormat)
	default:
		return nil, nil, fmt.Errorf("%s: %w, found no SA in %d bytes (ip xfrm state shows SAs to root alone)", name, ErrFormat, len(data))
	}
	for _, p := range found {
		l.add(p)
	}
	return l.sas, l.notes, nil
}

// parsed is one SA of a text, or the reason for leaving it out.
type parsed struct {
	*sa.SA
	line int
	err  error
}

func newSA() *sa.SA { return &sa.SA{PadCheck: true, Offload: sa.Preferred, Window: sa.DefaultWindow} }

// list collects SAs under names of their own, each identity once.
type list struct {
	sas   []*sa.SA
	notes []string
	names map[string]bool
	ids   map[sa.ID]bool
}

func (l *list) add(p parsed) {
	err := p.err
	if bad := p.Check(false, true); err == nil && len(bad) > 0 {
		err = bad[0]
	}
	id := p.ID()
	if err == nil && l.ids[id] {
		err = errors.New("an SA with the same protocol, SPI and addresses came before it")
	}
	p.Name = l.name(p.SA)
	if err != nil {
		l.notes = append(l.notes, Redact(fmt.Sprintf("line %d: %s skipped: %v", p.line, p.Name, err)))
		return
	}
	l.ids[id], l.names[p.Name] = true, true
	l.sas = append(l.sas, p.SA)
}

// name names an SA after its SPI, and after its addresses where that is taken.
func (l *list) name(s *sa.SA) string {
	proto := s.Protocol.String()
	if s.Protocol == 0 {
		proto = "sa"
	}
	name := fmt.Sprintf("%s-%08x", proto, s.SPI)
	for _, a := range []netip.Addr{s.Dst, s.Src} {
		if l.names[name] && a.IsValid() {
			name += "-" + a.String()
		}
	}
	return name
}

// hexRun is what looks like a key wherever it stands: 16 or more hexadecimal
// digits, in one piece or byte by byte.
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
