// Package mirror follows the IPsec SAs of a Linux kernel through netlink: what an IKE
// daemon or a person gives to the kernel, the NIC gets too, and what is deleted or
// expires there leaves the NIC.
//
// It asks for all SAs once, and then hears of each change. If the kernel had to drop
// news, nothing is lost: it asks for all SAs again and corrects what differs. It knows
// what it gave to the NIC itself, and takes nothing else away. Keys stay in memory; no
// error and no log line has one.
package mirror

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"tapsec/internal/audit"
	"tapsec/sa"
)

// NIC is what holds the SAs, the mirror's among others.
type NIC interface {
	// Add puts an SA in force, and names it. On an error it is left to the kernel.
	Add(*sa.SA) error
	// Delete takes an added SA out of force, if it still is in force.
	Delete(*sa.SA)
}

// Teller is a NIC that also hears what the kernel has counted of an SA: before each Add,
// and before a Delete where the kernel says so.
type Teller interface {
	Counted(*sa.SA, Usage)
}

// Usage is what the kernel has counted for an SA.
type Usage struct {
	Packets  uint64 // sent or taken
	BadICV   uint64 // dropped: wrong ICV
	Replayed uint64 // dropped: seen before
	Late     uint64 // dropped: older than the window
	Window   uint32 // packets; 0 is no protection
}

// Mirror follows one kernel's SAs. Only Resync may be called during Run.
type Mirror struct {
	kernel kernel
	nic    NIC
	log    *slog.Logger

	held  map[id]*sa.SA // in force because of the mirror
	owner map[sa.ID]id  // the state that each of those is
	left  map[id]string // why others are not in force

	lines  audit.Limiter[id]
	silent bool // some that the log has no line of are not told of yet

	request uint32    // number of the latest dump
	dump    *dump     // the dump under way; nil: none
	stale   bool      // only another dump can tell what there is
	retry   time.Time // not before
}

// dump is a dump that is under way.
type dump struct {
	seen map[id]bool // states that it, or news meanwhile, told of
	gone map[id]bool // gone meanwhile: the dump's word on these is older
}

// kernel is where the messages come from.
type kernel interface {
	// receive gives the next datagram, valid until the next call. It waits at most that
	// long; negative is forever. Without a datagram the error is errNone, or errAsked
	// after wake; unix.ENOBUFS says that some were dropped.
	receive(wait time.Duration) ([]byte, error)
	// ask begins a dump with that number.
	ask(request uint32) error
	// port is the port that answers are addressed to.
	port() uint32
	// wake ends the current receive, or the next one. Any goroutine may call it.
	wake()
	Close() error
}

var (
	errNone  = errors.New("nothing has come")
	errAsked = errors.New("a dump is asked for")
)

const (
	firstDump = 10 * time.Second // a million SAs take less
	retryIn   = time.Second
)

// Open begins to follow the SAs of the current namespace, and returns once the NIC has
// those that exist. It needs CAP_NET_ADMIN, and so do later dumps.
func Open(nic NIC, log *slog.Logger) (*Mirror, error) {
	k, err := open(allNews)
	if err != nil {
		return nil, err
	}
	m := newMirror(k, nic, log)
	if err := m.first(); err != nil {
		return nil, errors.Join(err, k.Close())
	}
	return m, nil
}

func newMirror(k kernel, nic NIC, log *slog.Logger) *Mirror {
	return &Mirror{kernel: k, nic: nic, log: log, held: map[id]*sa.SA{}, owner: map[sa.ID]id{}, left: map[id]string{}, stale: true}
}

// first does everything up to the end of the first dump.
func (m *Mirror) first() error {
	for deadline := time.Now().Add(firstDump); m.stale || m.dump != nil; {
		switch err := m.step(max(0, time.Until(deadline))); { // less than 0 would be for ever
		case err != nil:
			return err
		case !m.retry.IsZero():
			return errors.New("the kernel does not say what SAs it has; the line before says why")
		case time.Now().After(deadline):
			return fmt.Errorf("the kernel does not say within %s what SAs it has", firstDump)
		}
	}
	m.log.Info("mirror", "sas", len(m.held), "left_to_the_kernel", len(m.left))
	return nil
}

// Run follows until ctx ends.
func (m *Mirror) Run(ctx context.Context) error {
	defer context.AfterFunc(ctx, func() { _ = m.kernel.Close() })()
	defer m.unsaid(true)
	for {
		wait := time.Duration(-1) // for ever
		if m.silent {
			wait = time.Second
		}
		if err := m.step(wait); ctx.Err() != nil {
			return nil
		} else if err != nil {
			return fmt.Errorf("mirror: the kernel's SAs cannot be followed any more: %w", err)
		}
	}
}

// Resync compares all SAs again: there may now be room for those that the NIC could not
// take, and the user may have given up SAs of their own.
func (m *Mirror) Resync() {
	m.kernel.wake()
}

// Close releases everything, after Run.
func (m *Mirror) Close() error {
	if err := m.kernel.Close(); !errors.Is(err, os.ErrClosed) {
		return err
	}
	return nil
}

// step receives a datagram and acts on it.
//
// Once its queue is full the kernel drops news until all of the queue has been read. So
// after a loss the queue is read to its end before the next dump: news during that dump
// is then without a gap, and newer than the dump.
func (m *Mirror) step(wait time.Duration) error {
	if m.stale && m.dump == nil {
		wait = max(0, time.Until(m.retry))
	}
	datagram, err := m.kernel.receive(wait)
	switch {
	case errors.Is(err, errAsked):
		m.stale = true
	case errors.Is(err, unix.ENOBUFS):
		m.log.Warn("mirror: news of the kernel's SAs was lost; all of them are compared")
		m.stale = true
	case errors.Is(err, errNone):
		m.unsaid(false)
		if m.stale && m.dump == nil && !time.Now().Before(m.retry) {
			return m.begin()
		}
	case err != nil:
		return err
	}
	for _, one := range split(datagram) {
		m.take(&one)
	}
	clear(datagram) // there are keys in it
	return nil
}

// begin begins a dump.
func (m *Mirror) begin() error {
	m.request++
	m.stale, m.dump = false, &dump{map[id]bool{}, map[id]bool{}}
	return m.kernel.ask(m.request)
}

// take acts on a message.
func (m *Mirror) take(one *message) {
	answers := one.port == m.kernel.port() && m.dump != nil && one.request == m.request
	if answers && one.partial {
		m.stale = true
	}
	switch one.kind {
	case isThere, isUpdated:
		if answers && m.dump.gone[one.id] {
			return
		}
		if m.dump != nil {
			m.dump.seen[one.id] = true
		}
		m.there(one)
	case isGone:
		if m.dump != nil {
			m.dump.gone[one.id] = true
		}
		if s := m.held[one.id]; s != nil && one.counted {
			m.counted(s, &one.usage)
		}
		m.gone(one.id)
	case isMoved:
		m.stale = true
	case dumped:
		if answers {
			m.end()
		}
	case refused:
		if answers {
			if m.retry.IsZero() {
				m.log.Error("mirror: the kernel does not say what SAs it has; it is asked again each second", "err", one.err)
			}
			m.dump, m.stale, m.retry = nil, true, time.Now().Add(retryIn)
		}
	case unread:
		m.log.Error("mirror: the kernel says of an SA what this program cannot read", "err", one.err)
	}
}

// end takes away what the dump did not mention. A dump that began before news was lost
// counts for nothing.
func (m *Mirror) end() {
	d := m.dump
	m.dump, m.retry = nil, time.Time{}
	if m.stale {
		return
	}
	defer func() { m.log.Debug("mirror: all is compared", "sas", len(m.held)) }()
	for _, which := range slices.AppendSeq(slices.Collect(maps.Keys(m.held)), maps.Keys(m.left)) {
		if !d.seen[which] {
			m.gone(which)
		}
	}
}

// there puts a state in force that is new or has changed.
func (m *Mirror) there(one *message) {
	if one.state.Larval() {
		return
	}
	s, err := one.state.SA()
	old := m.held[one.id]
	switch {
	case old != nil && err == nil && old.Same(s) && old.Encap == s.Encap:
	case old != nil && one.kind == isUpdated:
		m.stale = true // what was requested differs, and not all of it takes effect
		return
	default:
		m.drop(one.id)
	}
	if err == nil {
		err = m.add(one.id, s, one.usage)
	}
	if err != nil {
		m.leave(one.id, err)
	}
}

// add puts a state in force, unless it already is.
func (m *Mirror) add(which id, s *sa.SA, usage Usage) error {
	if owner, held := m.owner[s.ID()]; held && owner != which {
		return fmt.Errorf("to the NIC it is the same as %s", owner)
	}
	m.counted(s, &usage)
	if err := m.nic.Add(s); err != nil {
		return err
	}
	m.held[which], m.owner[s.ID()] = s, which
	delete(m.left, which)
	return nil
}

// counted tells the NIC, if it wants to know.
func (m *Mirror) counted(s *sa.SA, u *Usage) {
	if t, wants := m.nic.(Teller); wants {
		t.Counted(s, *u)
	}
}

// leave leaves a state to the kernel, and logs that once, at a bounded rate.
func (m *Mirror) leave(which id, why error) {
	m.forget(which)
	if m.left[which] == why.Error() {
		return
	}
	m.left[which] = why.Error()
	suppressed, ok := m.lines.Allow(0, which)
	if m.silent = m.silent || !ok; !ok {
		return
	}
	more := []any{"sa", which.String(), "err", why}
	if suppressed > 0 {
		more = append(more, "suppressed", suppressed)
	}
	m.log.Warn("mirror: an SA of the kernel's is left to it", more...)
}

// unsaid logs how many lines were left out and no later one tells of.
func (m *Mirror) unsaid(all bool) {
	m.lines.Silent(all, func(_ uint8, suppressed uint64) {
		m.log.Warn("mirror: more SAs of the kernel's are left to it, without lines of their own", "suppressed", suppressed)
	})
	m.silent = false
}

// gone notes that a state no longer exists.
func (m *Mirror) gone(which id) {
	m.drop(which)
	delete(m.left, which)
}

// drop takes a state out of force, if it is in force.
func (m *Mirror) drop(which id) {
	if s := m.held[which]; s != nil {
		m.nic.Delete(s)
	}
	m.forget(which)
}

func (m *Mirror) forget(which id) {
	if s := m.held[which]; s != nil {
		delete(m.owner, s.ID())
	}
	delete(m.held, which)
}
