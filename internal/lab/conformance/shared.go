package conformance

import (
	"fmt"
	"slices"
	"strings"

	"tapsec/sa"
)

// Setups returns all cases in as few setups as possible: those of Contract, and the
// vectors, whose SAs share a NIC unless they get in each other's way. Each has a name
// of its own.
func Setups() []Setup {
	var vectors []*shared
	for _, l := range Vectors() {
		i := slices.IndexFunc(vectors, func(s *shared) bool { return s.takes(&l) })
		if i < 0 {
			i = len(vectors)
			vectors = append(vectors, &shared{
				Setup: Setup{Name: fmt.Sprintf("vectors-%02d", i+1), Profile: l.Profile}, bySPI: map[uint32]*Setup{}})
		}
		vectors[i].add(&l)
	}
	all := Contract()
	for _, s := range vectors {
		all = append(all, s.Setup)
	}
	return all
}

// Named returns the setups that have one of these names, or all if there is no
// name.
func Named(names []string) (some []Setup, err error) {
	all := Setups()
	if len(names) == 0 {
		return all, nil
	}
	var known []string
	for _, l := range all {
		known = append(known, l.Name)
		if slices.Contains(names, l.Name) {
			some = append(some, l)
		}
	}
	for _, name := range names {
		if !slices.Contains(known, name) {
			return nil, fmt.Errorf("expected one of %s, found %q", strings.Join(known, ", "), name)
		}
	}
	return some, nil
}

// shared is a setup with the SAs of several others.
type shared struct {
	Setup
	bySPI map[uint32]*Setup // the first setup with an SA of that SPI
}

// takes reports whether a setup's SAs can stand beside those that are there. They
// can if none has an SPI that is there already: then no frame of the one meets an
// SA of the other. They also can if they are the very same SAs, none with ESN,
// where a number depends on earlier frames. The test of the setups makes sure
// that an SPI that only a frame has is met nowhere else.
func (s *shared) takes(l *Setup) bool {
	for _, b := range l.Bundles {
		for _, one := range b {
			if other := s.bySPI[one.SPI]; other != nil && !sameSAs(other, l) {
				return false
			}
		}
	}
	return true
}

func sameSAs(a, b *Setup) bool {
	same := func(x, y *sa.SA) bool { return x.Same(y) && x.Encap == y.Encap && x.PadCheck == y.PadCheck && !x.ESN }
	return slices.EqualFunc(a.Bundles, b.Bundles, func(x, y []*sa.SA) bool { return slices.EqualFunc(x, y, same) })
}

// add puts a setup's cases, and the SAs that are not there yet, into the shared one.
// SAs get names that are unique in it.
func (s *shared) add(l *Setup) {
	s.Cases = append(s.Cases, l.Cases...)
	for _, b := range l.Bundles {
		if s.bySPI[b[0].SPI] != nil && s.bySPI[b[0].SPI] != l {
			continue
		}
		s.Bundles = append(s.Bundles, renamed(b, len(s.Bundles)+1))
		for _, one := range b {
			s.bySPI[one.SPI] = l
		}
	}
}

// renamed is a copy of a bundle, named after its place.
func renamed(bundle []*sa.SA, place int) []*sa.SA {
	var out []*sa.SA
	for _, one := range bundle {
		c := *one
		if c.Name = fmt.Sprintf("%s-%04d", c.Protocol, place); c.Bundle != "" {
			c.Bundle = fmt.Sprintf("%s-%04d", sa.ESP, place)
		}
		out = append(out, &c)
	}
	return out
}
