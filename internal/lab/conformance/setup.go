package conformance

import (
	"fmt"
	"slices"
	"strings"

	"tapsec/sa"
)

// Setups returns all cases in as few labs as possible: the contract's table as in
// Labs, and the vectors, whose SAs share a NIC unless they get in each other's
// way. Each lab has a name of its own.
func Setups() []Lab {
	var shared []*setup
	for _, l := range Vectors() {
		i := slices.IndexFunc(shared, func(s *setup) bool { return s.takes(&l) })
		if i < 0 {
			i = len(shared)
			shared = append(shared, &setup{
				Lab: Lab{Name: fmt.Sprintf("vectors-%02d", i+1), Profile: l.Profile}, bySPI: map[uint32]*Lab{}})
		}
		shared[i].add(&l)
	}
	all := Labs()
	for _, s := range shared {
		all = append(all, s.Lab)
	}
	return all
}

// Named returns the setups that have one of these names, or all if there is no
// name.
func Named(names []string) (some []Lab, err error) {
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

// setup is a NIC with the SAs of several labs.
type setup struct {
	Lab
	bySPI map[uint32]*Lab // the first lab with an SA of that SPI
}

// takes reports whether the lab's SAs can stand beside those of the setup. They
// can if none has an SPI that is there already: then no frame of the one meets an
// SA of the other. They also can if they are the very same SAs, none with ESN,
// where a number depends on earlier frames. The test of the setups makes sure
// that an SPI that only a frame has is met nowhere else.
func (s *setup) takes(l *Lab) bool {
	for _, b := range l.Bundles {
		for _, one := range b {
			if other := s.bySPI[one.SPI]; other != nil && !sameSAs(other, l) {
				return false
			}
		}
	}
	return true
}

func sameSAs(a, b *Lab) bool {
	same := func(x, y *sa.SA) bool { return x.Same(y) && x.Encap == y.Encap && x.PadCheck == y.PadCheck && !x.ESN }
	return slices.EqualFunc(a.Bundles, b.Bundles, func(x, y []*sa.SA) bool { return slices.EqualFunc(x, y, same) })
}

// add puts a lab's cases, and the SAs that are not there yet, into the setup.
// SAs get names that are unique in it.
func (s *setup) add(l *Lab) {
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
