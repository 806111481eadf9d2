package diagnosis

import (
	"cmp"
	"slices"

	"tapsec/internal/account"
)

// subjects are the SAs by name, then the headers without one.
func (d *Case) subjects() []*subject {
	var known, unknown []*subject
	for _, s := range d.known {
		known = append(known, s)
	}
	for _, s := range d.unknown {
		unknown = append(unknown, s)
	}
	slices.SortFunc(known, func(a, b *subject) int { return cmp.Compare(a.sa.Name, b.sa.Name) })
	slices.SortFunc(unknown, func(a, b *subject) int { return cmp.Compare(a.header.String(), b.header.String()) })
	return append(known, unknown...)
}

// All is all that was found out.
func (d *Case) All() (all []account.Finding) {
	for _, s := range d.subjects() {
		all = append(all, d.of(s)...)
	}
	return all
}

// Kept is how many bytes of frames a Case holds.
func (d *Case) Kept() (n int) {
	for _, s := range d.subjects() {
		for _, x := range s.samples.all {
			n += len(x.frame)
		}
	}
	return n
}
