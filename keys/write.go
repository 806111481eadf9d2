package keys

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"slices"

	"tapsec/sa"
)

// forms are the formats' names and functions. In those with line, a line holds one SA. YAML
// holds all of an SA, and is read by package configs. Only charon writes its log.
var forms = map[Format]struct {
	name  string
	write func(io.Writer, []*sa.SA) error
	line  func(*sa.SA) (string, error)
	parse func(string) *found
}{
	YAML:      {name: "yaml", write: WriteYAML},
	XFRM:      {name: "xfrm", write: WriteXFRM, line: xfrmCommand, parse: parseXFRM},
	ESPSA:     {name: "esp_sa", write: WriteESPSA, line: tableRow, parse: parseESPSA},
	Charon:    {name: "charon log", parse: parseCharon},
	Setkey:    {name: "setkey", parse: parseSetkey},
	FortiGate: {name: "FortiGate", parse: parseFortiGate},
	RouterOS:  {name: "RouterOS", parse: parseRouterOS},
}

// String names the format.
func (f Format) String() string { return forms[f].name }

// MarshalText writes String.
func (f Format) MarshalText() ([]byte, error) { return []byte(f.String()), nil }

// UnmarshalText reads "yaml", "xfrm" or "esp_sa".
func (f *Format) UnmarshalText(b []byte) error {
	for format, form := range forms {
		if form.name == string(b) && form.write != nil {
			*f = format
			return nil
		}
	}
	return fmt.Errorf("expected yaml, xfrm or esp_sa, found %s", sa.Quote(string(b)))
}

// Write prints SAs in a format that UnmarshalText knows, keys included. Errors are the writer's.
func Write(w io.Writer, f Format, sas []*sa.SA) error { return forms[f].write(w, sas) }

// Lost says what a format cannot hold of an SA: fields by their names in a configuration, or an
// error if it cannot hold the SA at all. Everything else but the name would be read back
// unchanged.
func Lost(f Format, s *sa.SA) (fields []string, err error) {
	form := forms[f]
	if form.line == nil {
		return nil, nil
	}
	line, err := form.line(s)
	if err != nil {
		return nil, err
	}
	back := form.parse(line).all
	if len(back) != 1 {
		return nil, errors.New("its line cannot be read back")
	}
	lost := func(field string, is bool) {
		if is {
			fields = append(fields, field)
		}
	}
	got := back[0]
	lost("integrity", got.err != nil) // decrypted, and not checked
	lost("src", got.Src != s.Src && !s.Encap)
	lost("mode", got.Mode != s.Mode)
	lost("esn", got.ESN != s.ESN)
	lost("direction", s.Direction != sa.AnyDirection && got.Direction != s.Direction)
	lost("seq_high", s.SeqHigh != 0 && s.Seq == 0 && s.OSeq == 0 && got.SA.HighHalf() != s.SeqHigh)
	lost("seq", s.Seq != 0 && got.Seq != s.Seq)
	lost("bitmap", s.Bitmap != nil && !slices.Equal(got.Bitmap, s.Bitmap))
	lost("oseq", s.OSeq != 0 && got.OSeq != s.OSeq)
	lost("encap", got.Encap != s.Encap || got.EncapSrc != s.EncapSrc || got.EncapDst != s.EncapDst)
	lost("bundle", s.Bundle != "")
	lost("window", s.Window != 0 && got.Window != s.Window && !s.ReplayOff && s.Direction != sa.Outbound)
	lost("replay_off", s.ReplayOff && (f != XFRM || s.ESN))
	lost("pad_check", !s.PadCheck)
	lost("selector", !sameSelector(got.Selector, s.Selector))
	lost("lifetimes", s.Lifetimes != sa.Lifetimes{})
	lost("offload", s.Offload == sa.Never)
	return fields, nil
}

// Fit returns the SAs that a format can hold, and what it cannot: a line for each
// kind of loss, with the names of the SAs.
func Fit(f Format, sas []*sa.SA) (fit []*sa.SA, losses []string) {
	var kinds []string
	names := map[string][]string{}
	say := func(kind, name string) {
		if names[kind] == nil {
			kinds = append(kinds, kind)
		}
		names[kind] = append(names[kind], name)
	}
	for _, s := range sas {
		fields, err := Lost(f, s)
		if err != nil {
			say(fmt.Sprintf("left out: %v", err), s.Name)
			continue
		}
		for _, field := range fields {
			say(fmt.Sprintf("%s cannot hold %s", f, field), s.Name)
		}
		if f == ESPSA && needsWireshark42(s) {
			say("needs Wireshark 4.2 or later", s.Name)
		}
		fit = append(fit, s)
	}
	for _, kind := range kinds {
		losses = append(losses, fmt.Sprintf("%s: %s", kind, sa.Few(names[kind], 3, ", ")))
	}
	return fit, losses
}

func sameSelector(a, b *sa.Selector) bool {
	none := &sa.Selector{}
	return *cmp.Or(a, none) == *cmp.Or(b, none)
}
