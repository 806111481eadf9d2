package inspect

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"tapsec/internal/account"
	"tapsec/internal/near"
	"tapsec/pipeline"
	"tapsec/sa"
	"tapsec/status"
	"tapsec/wire"
)

// Filter says which frames of a capture count, and which of those are reported. The zero
// Filter takes all.
type Filter struct {
	SAs   []string     // frames of one of these
	SPIs  []sa.SPI     // frames with one of these
	Hosts []netip.Addr // frames from or to one of these, an opened tunnel's packet included
	Only  Only         // reported, of those that count
}

// Only is a set of kinds of frames to be reported; the zero Only is all.
type Only uint8

var kinds = []string{"good", "failed", "left-alone", "not-judged", "replayed", "late"}

// Kinds returns the words for the kinds of Only.
func Kinds() []string { return slices.Clone(kinds) }

// ParseFilter reads the words of the flags --only, --sa, --spi and --host. An error names the
// flag.
func ParseFilter(only, sas, spis, hosts []string) (f Filter, err error) {
	f.SAs = sas
	for _, word := range only {
		n := slices.Index(kinds, word)
		if n < 0 {
			return f, fmt.Errorf("--only: expected some of %s, found %s", strings.Join(kinds, ", "), sa.Quote(word))
		}
		f.Only |= 1 << n
	}
	for _, text := range spis {
		var spi sa.SPI
		if err := spi.UnmarshalText([]byte(text)); err != nil {
			return f, fmt.Errorf("--spi: %w", err)
		}
		f.SPIs = append(f.SPIs, spi)
	}
	for _, text := range hosts {
		host, err := netip.ParseAddr(text)
		if err != nil {
			return f, fmt.Errorf("--host: expected an address, found %s", sa.Quote(text))
		}
		f.Hosts = append(f.Hosts, host.Unmap())
	}
	return f, nil
}

var kindOf = [account.NumVerdicts]Only{account.Good: 1, account.GoodBoth: 1, account.Failed: 2, account.LeftAlone: 4, account.NotJudged: 8}

func (o Only) has(f *frame) bool {
	return o == 0 || o&kindOf[f.verdict] != 0 || o&16 != 0 && f.Replayed || o&32 != 0 && f.Late
}

// MayTake reports whether the filter can take a frame with this trailer. It looks at nothing
// else, and allocates nothing.
func (f *Filter) MayTake(t *status.Trailer) bool {
	const byNumber = 16 | 32 // which only an account tells
	if f.Only != 0 && f.Only&byNumber == 0 && f.Only&kindOf[account.VerdictOf(t.Word, false)] == 0 {
		return false
	}
	return len(f.SPIs) == 0 || account.Unmatched(t) ||
		slices.ContainsFunc(t.Records[:t.N], func(r status.Record) bool { return slices.Contains(f.SPIs, sa.SPI(r.SPI)) })
}

// awaits reports whether an SA without a frame that counts has none at all.
func (f *Filter) awaits(name string) bool {
	return len(f.SPIs)+len(f.Hosts) == 0 && (len(f.SAs) == 0 || slices.Contains(f.SAs, name))
}

// check compares the names with those of the SAs.
func (f *Filter) check(held []pipeline.Holding, others []*sa.SA) error {
	var names []string
	if len(f.SAs) > 0 {
		for _, h := range held {
			names = append(names, h.Name)
		}
		for _, s := range others {
			names = append(names, s.Name)
		}
	}
	for _, name := range f.SAs {
		if !slices.Contains(names, name) {
			return fmt.Errorf("--sa: expected the name of an SA, found %s; %s", sa.Quote(name), meant(name, names))
		}
	}
	return nil
}

// meant says which of names a wrong one may have meant.
func meant(name string, names []string) string {
	const few, many = 10, 1000
	known := fmt.Sprintf("%d SAs are known", len(names))
	if len(names) > many { // which takes its time
		return known
	}
	switch near := near.Name(name, names); {
	case near != "":
		return "did you mean " + near + "?"
	case len(names) > few:
		return known
	case len(names) == 0:
		return "no SA is known"
	}
	return "there are " + strings.Join(names, ", ")
}

// selects reports whether a frame counts.
func (i *Inspector) selects(f *frame) bool {
	o, t := &i.opt.Filter, &f.trailer
	if len(o.SAs) > 0 && !slices.ContainsFunc(t.Records[:t.N], func(r status.Record) bool {
		return slices.Contains(o.SAs, i.account.Name(r.Handle))
	}) {
		return false
	}
	if len(o.SPIs) > 0 && !(f.Unmatched && slices.Contains(o.SPIs, f.Header.SPI)) &&
		!slices.ContainsFunc(t.Records[:t.N], func(r status.Record) bool { return slices.Contains(o.SPIs, sa.SPI(r.SPI)) }) {
		return false
	}
	return len(o.Hosts) == 0 || slices.ContainsFunc(o.Hosts, f.concerns)
}

// concerns reports whether the frame's packet, or one that was opened in it, is from
// or to a host.
func (f *frame) concerns(host netip.Addr) bool {
	if host == f.src || host == f.dst {
		return true
	}
	if f.trailer.Form == status.Decap {
		src, dst := account.Ends(f.body)
		return host == src || host == dst
	}
	for _, r := range f.trailer.Records[:f.trailer.N] {
		if r.Portion == status.TunnelPortion && r.State == status.ICVValid {
			if p, ok := wire.Addresses(f.body, int(r.Payload)); ok && (host == p.Src || host == p.Dst) {
				return true
			}
		}
	}
	return false
}
