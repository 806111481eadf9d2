package ledger

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"

	"tapsec/sa"
)

// life is a ledger beside what its model knows: every number that was ever sent
// or taken under a key, in whichever life of the program.
type life struct {
	t    *rapid.T
	path string
	full bool // the disk

	*Ledger
	sas   []*sa.SA
	used  [2]map[uint64]bool
	taken [2]map[uint64]bool
	top   [2]uint64 // highest number taken
	tried [2]uint64 // highest number that came; a lease for it may stand on a disk that was full
	lost  [2]uint64 // numbers up to here may be refused since a program was killed
}

func (m *life) open() {
	l, err := open(m.path, nil) // does not know of the full disk
	if err != nil {
		m.t.Fatal(err)
	}
	m.Ledger = l
	l.keeper.journal.write = m.write
}

// write is a disk that may be full: then half of what was to be written is.
func (m *life) write(f *os.File, text []byte) error {
	if m.full {
		_, _ = f.Write(text[:rapid.IntRange(0, len(text)).Draw(m.t, "written")])
		return unix.ENOSPC
	}
	_, err := f.Write(text)
	return err
}

// kill ends the life. Of each SA at most a lease is lost, or the one that was
// being written.
func (m *life) kill() {
	for i := range m.sas {
		in := m.Inbound(m.sas[i])
		l := &in.lease
		bound := max(l.upTo, m.tried[i]) + growth*max(l.size, leastLease)
		m.lost[i] = max(m.lost[i], bound)
	}
	m.keeper.journal.close()
	m.Ledger = nil
	m.open()
}

func (m *life) close() {
	if err := m.shut(); err == nil {
		m.Ledger = nil
		m.open()
		return
	} else if !m.full {
		m.t.Fatal(err)
	}
	m.kill()
}

// shut is Close, of a ledger whose keeper does not run.
func (m *life) shut() error {
	close(m.keeper.done)
	return m.Close()
}

func (m *life) next() {
	i := rapid.IntRange(0, 1).Draw(m.t, "SA")
	c := m.Counter(m.sas[i])
	for range rapid.SampledFrom([]int{1, 5, 40, 200}).Draw(m.t, "packets") {
		n, err := c.Next(lastNumber)
		switch {
		case errors.Is(err, ErrLease) && m.keeper.failing.Load():
			return
		case err != nil:
			m.t.Fatal(err)
		case m.used[i][n]:
			m.t.Fatalf("number %d is sent twice", n)
		}
		m.used[i][n] = true
	}
}

// accept has numbers arrive: new ones, old ones, such from far ahead, and the last
// ones of a lease.
func (m *life) accept() {
	i := rapid.IntRange(0, 1).Draw(m.t, "SA")
	in := m.Inbound(m.sas[i])
	first := m.top[i] - min(m.top[i], rapid.Uint64Range(0, 70).Draw(m.t, "back"))
	first += rapid.SampledFrom([]uint64{0, 0, 1, 70, 1000, in.lease.left(first)}).Draw(m.t, "ahead")
	for n := first; n < first+rapid.SampledFrom([]uint64{1, 10, 100}).Draw(m.t, "packets"); n++ {
		m.tried[i] = max(m.tried[i], n)
		switch v := in.Accept(n, 1); {
		case v == Fresh && (m.taken[i][n] || n == 0):
			m.t.Fatalf("number %d is taken twice", n)
		case v == Fresh:
			m.taken[i][n] = true
			m.top[i] = max(m.top[i], n)
		case v == NoLease && !m.keeper.failing.Load():
			m.t.Fatalf("number %d has no lease", n)
		case v == Refused && !m.taken[i][n] && n > m.lost[i] && n+64 > m.top[i]:
			m.t.Fatalf("number %d is refused; lost may be those up to %d", n, m.lost[i])
		}
	}
}

// RFC 4303 sections 3.3.3 and 3.4.3, RFC 4106 section 3.1: whatever happens to
// program and disk, no number is sent twice under one key, and none is taken
// twice; what is lost is bounded.
func TestModel(t *testing.T) {
	dir := t.TempDir()
	rapid.Check(t, func(t *rapid.T) {
		m := &life{t: t, path: filepath.Join(dir, "state"), sas: []*sa.SA{newSA(1, gcm), newSA(2)}}
		_ = os.Remove(m.path)
		for i := range m.used {
			m.used[i], m.taken[i] = map[uint64]bool{}, map[uint64]bool{}
		}
		m.open()
		defer func() { m.keeper.journal.close() }()
		t.Repeat(map[string]func(*rapid.T){
			"next":   func(*rapid.T) { m.next() },
			"accept": func(*rapid.T) { m.accept() },
			"renew":  func(*rapid.T) { m.keeper.renew(false) },
			"second": func(*rapid.T) {
				m.keeper.began = m.keeper.began.Add(-time.Second)
				m.keeper.renew(true)
			},
			"full":  func(*rapid.T) { m.full = !m.full },
			"kill":  func(*rapid.T) { m.kill() },
			"close": func(*rapid.T) { m.close() },
		})
	})
}
