// Package nic runs the software NIC: it moves frames between the wire's and the host's interface.
//
// A worker is a goroutine: one for each queue with the ring engine, two with the plain one. In either
// direction a batch goes through a chain of stages; an empty chain passes bytes untouched. What a stage
// does with a frame, and how it reports that, is its own matter. This package knows frames as bytes,
// keeps their order, and counts them: In = Out + HostDown + TooLong + Refused + Kept, where Kept is what
// the stages took less what they made.
//
// The caller owns the Devices: it opens them before New and closes them after Run has returned.
package nic

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"tapsec/tap"
)

// Stage is one step of a frame's way. Batch returns the frames that go on, in order: those that it was
// given, which it may change in place and lengthen into their spare capacity, or fewer of them, or frames
// of its own. Its own may lie in its memory and stay unchanged until its next Batch. It keeps none that it
// was given. A stage belongs to one worker and is not used concurrently.
type Stage interface {
	Batch(frames [][]byte) [][]byte
}

// Chain makes the stages of one queue in one direction, first stage first. An empty chain moves
// bytes untouched, and so does nil.
type Chain func(queue int) []Stage

func (c Chain) stages(queue int) []Stage {
	if c == nil {
		return nil
	}
	return c(queue)
}

// Config is what a NIC is made of. Wire and Host may be TAPs or attached interfaces.
type Config struct {
	Wire, Host *tap.Device
	Room       int   // longest frame in bytes that either side may send
	Tail       int   // bytes that the stages may append to a frame
	Chain      Chain // wire to host
	Outward    Chain // host to wire
	Engine     tap.Engine
	Merging    tap.Merging   // see tap.Options
	BusyPoll   time.Duration // how long after the last frame to look for another before sleeping
	Opened     func()        // if not nil, called by Run once all is open, before a frame moves
}

// NIC is a software NIC with as many queues as its two interfaces.
type NIC struct {
	wire    *tap.Device
	workers []*worker
	opened  func()
}

// New joins the two interfaces, queue by queue.
func New(c Config) (*NIC, error) {
	if c.Wire.Queues() != c.Host.Queues() {
		return nil, fmt.Errorf("%s has %d queues and %s has %d: give both the same number",
			c.Wire.Name(), c.Wire.Queues(), c.Host.Name(), c.Host.Queues())
	}
	n := &NIC{wire: c.Wire, opened: c.Opened}
	o := tap.Options{Room: c.Room, Tail: c.Tail, Engine: c.Engine, BusyPoll: c.BusyPoll, Merging: c.Merging}
	for queue := range c.Wire.Queues() {
		joined, err := tap.Join(c.Wire, c.Host, queue, o)
		if err != nil {
			return nil, err
		}
		toHost, toWire := c.Chain.stages(queue), c.Outward.stages(queue)
		for _, w := range joined {
			n.workers = append(n.workers, &worker{Worker: w, wire: c.Wire, toHost: toHost, toWire: toWire})
		}
	}
	return n, nil
}

// Run moves frames until ctx ends, and then returns nil, or until an interface fails; a deleted one
// is an error that names it and wraps tap.ErrGone. When Run returns all workers have ended. A NIC
// runs once.
func (n *NIC) Run(ctx context.Context) error {
	errs, begin := make(chan error, len(n.workers)), make(chan struct{})
	var opening, running sync.WaitGroup
	for _, w := range n.workers {
		opening.Add(1)
		running.Go(func() {
			_ = w.Open() // Next returns the error again
			opening.Done()
			<-begin
			errs <- w.run()
		})
	}
	opening.Wait()
	if n.opened != nil {
		n.opened()
	}
	close(begin)
	var failure error
	select {
	case failure = <-errs:
	case <-ctx.Done():
	}
	for _, w := range n.workers {
		w.Stop()
	}
	running.Wait()
	if errors.Is(failure, tap.ErrStopped) {
		return nil
	}
	return failure
}

// Engine returns how the NIC moves frames, and a sentence why: Ring if that moves all of them, XDP or Direct if
// that moves those of an attached interface and Ring the others, else Plain. It is known from New on, and does
// not change.
func (n *NIC) Engine() (engine tap.Engine, why string) {
	var reasons []string
	engine = tap.Ring
	for _, w := range n.workers {
		is, why := w.Engine()
		if is == tap.Plain && engine != tap.Plain {
			engine, reasons = tap.Plain, slices.Insert(reasons, 0, why)
		}
		if is != tap.Plain && engine == tap.Ring {
			engine = is
		}
		if !slices.Contains(reasons, why) {
			reasons = append(reasons, why)
		}
	}
	return engine, strings.Join(reasons, "; ")
}

// Rounds counts each worker's rounds: one for every batch, and at least one a second when there are no
// frames. A worker whose count stands still moves no frames.
func (n *NIC) Rounds() []uint64 {
	var all []uint64
	for _, w := range n.workers {
		all = append(all, w.Rounds())
	}
	return all
}

// Summary is what was moved so far.
type Summary struct {
	ToHost tap.Tally `json:"to_host"`
	ToWire tap.Tally `json:"to_wire"`
}

// Summary sums the counters of all workers, each as of its latest batch. It may be called at any time.
func (n *NIC) Summary() Summary {
	var s Summary
	for _, w := range n.workers {
		for _, d := range w.Directions() {
			if d.From() == n.wire {
				s.ToHost.Add(d.Tally())
			} else {
				s.ToWire.Add(d.Tally())
			}
		}
	}
	return s
}
