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
	order      []*member // by place; deleted ones stay until they are half of it
	gone       int
	latest     uint64
	names, ids lookup
}

// member is an SA in force.
type member struct {
	*sa.SA
	place  uint64   // from 1, never used again
	bundle []*sa.SA // the SA, or AH and ESP
	origin origin
	gone   bool
	stays  bool // for changes alone
}

// origin says who put an SA in force, and so who takes it out again.
type origin uint8

const (
	ofFile   origin = iota + 1 // the configuration, or a file of keys
	ofSocket                   // whoever asked for it at run time
	ofMirror                   // the kernel has it
)

// String names the origin, as lists show it.
func (o origin) String() string { return [...]string{"", "file", "socket", "mirror"}[o] }

func newRoster() *roster { return &roster{names: newLookup(), ids: newLookup()} }

// name finds the member of a name, nil if there is none, and id that of an identity.
func (r *roster) name(name string) *member {
	return r.names.find(hashOf(name), func(m *member) bool { return m.Name == name })
}

func (r *roster) id(id sa.ID) *member {
	return r.ids.find(idHash(id), func(m *member) bool { return m.ID() == id })
}

// len is the number of members.
func (r *roster) len() int { return len(r.order) - r.gone }

// add adds the SAs of a bundle.
func (r *roster) add(bundle []*sa.SA, by origin) {
	for _, s := range bundle {
		r.latest++
		m := &member{SA: s, place: r.latest, bundle: bundle, origin: by}
		r.order = append(r.order, m)
		r.names.put(hashOf(s.Name), m)
		r.ids.put(idHash(s.ID()), m)
	}
}

// replace makes these bundles the members, in this order, at new places. Members that stay have
// their origin, others are the file's.
func (r *roster) replace(bundles [][]*sa.SA) {
	before, last := r.order, r.latest
	r.order, r.gone = make([]*member, 0, len(bundles)), 0
	var more []*member
	for _, bundle := range bundles {
		for _, s := range bundle {
			r.latest++
			m := r.id(s.ID())
			if m == nil || m.SA != s {
				m = &member{SA: s, origin: ofFile}
				more = append(more, m)
			}
			m.place, m.bundle = r.latest, bundle
			r.order = append(r.order, m)
		}
	}
	for _, m := range before {
		if !m.gone && m.place <= last {
			r.forget(m)
		}
	}
	for _, m := range more {
		r.names.put(hashOf(m.Name), m)
		r.ids.put(idHash(m.ID()), m)
	}
}

func (r *roster) forget(m *member) {
	r.names.drop(hashOf(m.Name), m)
	r.ids.drop(idHash(m.ID()), m)
	m.gone = true
}

// remove takes the SAs of a bundle out.
func (r *roster) remove(bundle []*sa.SA) {
	for _, s := range bundle {
		r.forget(r.id(s.ID()))
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
		if known := r.inForce(s); known != nil {
			sas[i] = known
		}
	}
}

// inForce is the SA of the file that is in force and says the same as s; nil if there is none.
func (r *roster) inForce(s *sa.SA) *sa.SA {
	if m := r.id(s.ID()); m != nil && m.origin == ofFile && m.Unchanged(s) {
		return m.SA
	}
	return nil
}

func anyMember(*member) bool { return true }

// by picks the members of one origin.
func by(o origin) func(*member) bool { return func(m *member) bool { return m.origin == o } }
