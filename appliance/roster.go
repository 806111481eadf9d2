//go:build linux

package appliance

import (
	"cmp"
	"slices"

	"tapsec/sa"
)

// roster is the list of the SAs in force, from the file and added at run time, oldest
// first. A place in it stays valid, whatever is added or deleted.
type roster struct {
	order  []*member // by place; deleted ones stay until they are half of it
	gone   int
	latest uint64
	byName map[string]*member
	byID   map[sa.ID]*member
}

// member is an SA in force.
type member struct {
	*sa.SA
	place  uint64   // from 1, never used again
	bundle []*sa.SA // the SA, or AH and ESP
	origin origin
	gone   bool
}

// origin says who put an SA in force, and so who takes it out again.
type origin string

const (
	ofFile   origin = "file"   // the configuration, or a file of keys
	ofSocket origin = "socket" // whoever asked for it at run time
	ofMirror origin = "mirror" // the kernel has it
)

// newRoster makes a roster with room for that many SAs.
func newRoster(sas int) *roster {
	return &roster{order: make([]*member, 0, sas), byName: make(map[string]*member, sas), byID: make(map[sa.ID]*member, sas)}
}

// add adds the SAs of a bundle.
func (r *roster) add(bundle []*sa.SA, by origin) {
	for _, s := range bundle {
		r.latest++
		m := &member{SA: s, place: r.latest, bundle: bundle, origin: by}
		r.order = append(r.order, m)
		r.byName[s.Name], r.byID[s.ID()] = m, m
	}
}

// remove takes the SAs of a bundle out.
func (r *roster) remove(bundle []*sa.SA) {
	for _, s := range bundle {
		m := r.byID[s.ID()]
		delete(r.byName, s.Name)
		delete(r.byID, s.ID())
		m.gone = true
		r.gone++
	}
	if r.gone > len(r.order)/2 {
		r.order = slices.DeleteFunc(r.order, func(m *member) bool { return m.gone })
		r.gone = 0
	}
}

// after returns at most limit members after a place, and whether there are more.
func (r *roster) after(place uint64, limit int) (page []*member, more bool) {
	i, _ := slices.BinarySearchFunc(r.order, place+1, func(m *member, at uint64) int { return cmp.Compare(m.place, at) })
	for _, m := range r.order[i:] {
		switch {
		case m.gone:
		case len(page) == limit:
			return page, true
		default:
			page = append(page, m)
		}
	}
	return page, false
}

// sas returns the SAs for which want is true, in order.
func (r *roster) sas(want func(*member) bool) (all []*sa.SA) {
	for _, m := range r.order {
		if !m.gone && want(m) {
			all = append(all, m.SA)
		}
	}
	return all
}

// share puts the file's SAs that are in force in the place of those that say the same, so that
// a reload has in memory once what has not changed.
func (r *roster) share(sas []*sa.SA) {
	for i, s := range sas {
		if m := r.byID[s.ID()]; m != nil && m.origin == ofFile && m.Unchanged(s) {
			sas[i] = m.SA
		}
	}
}

func anyMember(*member) bool { return true }

// by picks the members of one origin.
func by(o origin) func(*member) bool { return func(m *member) bool { return m.origin == o } }
