//go:build linux

package appliance

import (
	"hash/maphash"
	"slices"

	"tapsec/sa"
)

// lookup finds members by a hash, which takes a fifth of the memory that identities would
// take as the keys of a map.
type lookup struct {
	first  map[uint64]*member
	others []*member // those whose hash another one has, or has had: hardly ever any
}

func newLookup() lookup { return lookup{first: map[uint64]*member{}} }

// find is the member with this hash that is the one; nil if there is none.
func (l *lookup) find(hash uint64, is func(*member) bool) *member {
	if m := l.first[hash]; m != nil && is(m) {
		return m
	}
	if i := slices.IndexFunc(l.others, is); i >= 0 {
		return l.others[i]
	}
	return nil
}

func (l *lookup) put(hash uint64, m *member) {
	if l.first[hash] != nil {
		l.others = append(l.others, m)
		return
	}
	l.first[hash] = m
}

func (l *lookup) drop(hash uint64, m *member) {
	if l.first[hash] == m {
		delete(l.first, hash)
		return
	}
	l.others = slices.DeleteFunc(l.others, func(o *member) bool { return o == m })
}

// seeds are those of all hashes here, which nobody outside can foresee.
var seeds = [2]maphash.Seed{maphash.MakeSeed(), maphash.MakeSeed()}

func hashOf(text string) uint64 { return maphash.String(seeds[0], text) }

func idHash(id sa.ID) uint64 { return id.Hash(seeds[0]) }

// fingerprint stands for an identity where nothing tells whether two with one hash are the same:
// 128 bits are never the same by chance.
type fingerprint [2]uint64

func fingerprintOf(id sa.ID) fingerprint { return fingerprint{id.Hash(seeds[0]), id.Hash(seeds[1])} }
