// Package shadow judges beside a kernel that does IPsec itself: it judges copies of the
// frames that the kernel receives by the kernel's SAs, and compares the result with what
// the kernel counted. Traffic is not affected.
//
// Kernel and copies have no common clock. A frame that came while the kernel was asked
// for its counters, or while an SA came or went, may be in them or not: it makes our
// count a range, within which the kernel's must lie.
package shadow

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"tapsec/internal/mirror"
	"tapsec/internal/netns"
	"tapsec/keys"
	"tapsec/pipeline"
	"tapsec/sa"
	"tapsec/status"
	"tapsec/tap"
)

// delay is how long a copy waits for the kernel's news of its SA.
const delay = 100 * time.Millisecond

// Shadow follows one kernel, on one interface.
type Shadow struct {
	name     string
	copies   *tap.Copy
	mirror   *mirror.Mirror
	counters *mirror.Counters
	stat     *statistics
	log      *slog.Logger
	sad      *pipeline.SAD
	pipe     *pipeline.Pipeline

	mu      sync.Mutex // held by what touches the rest
	now     map[sa.ID]*account
	handles map[uint32]*account
	all     []*account
	names   map[string]bool // theirs
	waiting []waiting       // oldest first
	unsure  bool            // whether frames that come now are in the kernel's counters is unknown
	began   time.Time
	total   Frames
}

// waiting is a copy still to be judged or, without a frame, the end of an SA.
type waiting struct {
	frame  []byte
	ends   *account
	at     time.Time // when it was read
	unsure bool
}

// Open begins to follow the SAs of a namespace, empty for this one, and to copy what an
// interface there receives. It needs CAP_NET_RAW, and CAP_NET_ADMIN to learn of SAs; Run
// needs the latter.
func Open(name, namespace string, log *slog.Logger) (s *Shadow, err error) {
	profile, err := sa.ProfileByName("full")
	if err != nil {
		return nil, err
	}
	s = newShadow(name, profile, log)
	if err := netns.In(namespace, s.open); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

func newShadow(name string, profile sa.Profile, log *slog.Logger) *Shadow {
	s := &Shadow{name: name, log: log, sad: pipeline.NewSAD(profile, 1), now: map[sa.ID]*account{}, handles: map[uint32]*account{},
		names: map[string]bool{}, began: time.Now()}
	s.pipe = pipeline.New(s.sad, pipeline.Options{})
	return s
}

func (s *Shadow) open() (err error) {
	if s.copies, err = tap.OpenCopy(s.name); err != nil {
		return err
	}
	if s.counters, err = mirror.OpenCounters(); err != nil {
		return err
	}
	if s.stat, err = openStatistics(); err != nil {
		return err
	}
	s.mirror, err = mirror.Open(s, s.log)
	return err
}

// Close releases everything.
func (s *Shadow) Close() (err error) {
	if s.mirror != nil {
		err = s.mirror.Close()
	}
	if s.counters != nil {
		err = errors.Join(err, s.counters.Close())
	}
	if s.stat != nil {
		err = errors.Join(err, s.stat.Close())
	}
	if s.copies != nil {
		err = errors.Join(err, s.copies.Close())
	}
	return err
}

// Run judges until ctx ends, and compares.
//
//  1. The kernel's counters at the beginning.
//  2. Copies are judged once they have waited for the news of their SA.
//  3. What has come so far is judged, the kernel has a moment for what it still
//     works at, and its counters are those of the end.
func (s *Shadow) Run(ctx context.Context) (*Report, error) {
	ending, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	before, err := s.sample()
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	s.begin(before)
	s.log.Info("ready", "interface", s.name, "sas", len(s.now))
	s.mu.Unlock()
	followed := make(chan struct{})
	go func() {
		defer close(followed)
		stop(s.mirror.Run(context.WithoutCancel(ctx)))
	}()
	for ending.Err() == nil {
		if err := s.turn(); err != nil {
			return nil, err
		}
	}
	if ctx.Err() == nil {
		return nil, context.Cause(ending)
	}
	for moment := time.Now().Add(2 * delay); time.Now().Before(moment); {
		if err := s.turn(); err != nil {
			return nil, err
		}
	}
	after, err := s.sample()
	if err != nil {
		return nil, err
	}
	_ = s.mirror.Close()
	<-followed
	s.mu.Lock()
	defer s.mu.Unlock()
	s.judge(time.Now())
	return s.report(after)
}

// turn receives for a moment and judges what has waited long enough.
func (s *Shadow) turn() error {
	const moment = 10 * time.Millisecond
	if err := s.copies.Wait(moment); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.drain(); err != nil {
		return err
	}
	s.judge(time.Now().Add(-delay))
	return nil
}

// drain receives what has come; of a flood without end, only a part.
func (s *Shadow) drain() error {
	const most = 1 << 14
	for range most {
		frame, err := s.copies.Next()
		if err != nil || frame == nil {
			return err
		}
		s.total.Copied++
		copied := append(make([]byte, 0, len(frame)+status.Tailroom), frame...)
		s.waiting = append(s.waiting, waiting{frame: copied, at: time.Now(), unsure: s.unsure})
	}
	return nil
}

// sample reads the kernel's counters. Frames that come meanwhile may be in them or not.
func (s *Shadow) sample() (map[sa.ID]mirror.Usage, error) {
	hold := func(unsure bool) error {
		s.mu.Lock()
		defer s.mu.Unlock()
		err := s.drain()
		s.unsure = unsure
		return err
	}
	if err := hold(true); err != nil {
		return nil, err
	}
	usage, err := s.counters.Read()
	return usage, errors.Join(err, hold(false))
}

// Counted keeps the kernel's count for an SA: the first, or the last.
func (s *Shadow) Counted(one *sa.SA, u mirror.Usage) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if a := s.now[one.ID()]; a != nil {
		a.kernel = u
	} else {
		s.now[one.ID()] = newAccount(one, u)
	}
}

// Add makes an SA judge frames, including those that wait: they may have come before the
// kernel had it.
func (s *Shadow) Add(one *sa.SA) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.drain(); err != nil {
		return err
	}
	a := s.now[one.ID()]
	if a.handle != 0 { // all SAs are being compared
		return nil
	}
	one.Name = keys.Name(one, func(name string) bool { return s.names[name] })
	handle, err := s.sad.Add(one)
	if errors.Is(err, sa.ErrExists) { // the old one ended a moment ago
		s.judge(time.Now())
		handle, err = s.sad.Add(one)
	}
	if err != nil {
		delete(s.now, one.ID())
		return err
	}
	a.handle, a.added = handle, time.Now()
	s.handles[handle] = a
	s.all, s.names[one.Name] = append(s.all, a), true
	return nil
}

// Delete ends an SA after the frames that wait.
func (s *Shadow) Delete(one *sa.SA) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.drain(); err != nil {
		s.log.Error("copies cannot be received", "err", err)
	}
	a := s.now[one.ID()]
	a.deleted = time.Now()
	delete(s.now, one.ID())
	s.waiting = append(s.waiting, waiting{ends: a, at: a.deleted})
}

// judge judges the copies read before a time.
func (s *Shadow) judge(until time.Time) {
	n := 0
	for ; n < len(s.waiting) && !s.waiting[n].at.After(until); n++ {
		if w := &s.waiting[n]; w.ends != nil {
			_ = s.sad.Delete(w.ends.handle)
			delete(s.handles, w.ends.handle)
		} else {
			s.frame(w)
		}
	}
	s.waiting = append(s.waiting[:0], s.waiting[n:]...)
}

// frame judges one.
func (s *Shadow) frame(w *waiting) {
	_, trailer, err := status.Split(s.pipe.Process(w.frame))
	if err != nil {
		panic(fmt.Sprintf("shadow: the pipeline's own trailer: %v", err))
	}
	if trailer.N == 0 {
		if trailer.Reason != status.NoIPsec && trailer.Reason != status.NotIP {
			s.total.Unknown++
		}
		return
	}
	s.total.Judged++
	for _, r := range trailer.Records[:trailer.N] {
		if a := s.handles[r.Handle]; a != nil {
			a.count(&r, w.unsure || a.unsure(w.at))
		}
	}
}
