// Package nic runs the software NIC: it moves frames between the wire's and the host's interface.
//
// Each queue has two workers, one goroutine each. In either direction a batch goes through a chain of
// stages; where that is empty bytes pass untouched. What a stage does with a frame, and how it
// reports it, is the stage's own matter: this package knows frames as bytes, keeps their order, and
// counts them so that In = Out + HostDown + TooLong + Kept, where Kept is what the stages took less
// what they made.
//
// The caller owns the Devices: it opens them before New and closes them after Run has returned.
package nic

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"tapsec/tap"
)

// Stage is one step of a frame's way. Batch returns the frames that go on, in order: those that it
// was given, which it may change in place and lengthen into their spare capacity, or fewer, or also
// others of its own making. Its own may lie in its own memory, where they stay as they are until its
// next Batch. What it was given it does not keep: it copies what it wants to see again.
// A stage belongs to one worker and is not used concurrently.
type Stage interface {
	Batch(frames [][]byte) [][]byte
}

// Chain makes the stages of one queue in one direction, first stage first. An empty chain moves
// bytes untouched.
type Chain func(queue int) []Stage

// Config is what a NIC is made of. Wire and Host may be TAPs or attached interfaces.
type Config struct {
	Wire, Host *tap.Device
	Room       int   // longest frame in bytes that either side may send
	Tail       int   // bytes that the stages may add to a frame behind its end
	Chain      Chain // wire to host; nil is the empty chain
	Outward    Chain // host to wire, likewise
}

// NIC is a software NIC with as many queues as its two interfaces.
type NIC struct {
	queues         int
	toHost, toWire chains
	inbound        []*worker
	outward        []*worker
}

// New joins the two interfaces, queue by queue.
func New(c Config) (*NIC, error) {
	if c.Wire.Queues() != c.Host.Queues() {
		return nil, fmt.Errorf("%s has %d queues and %s has %d: give both the same number",
			c.Wire.Name(), c.Wire.Queues(), c.Host.Name(), c.Host.Queues())
	}
	n := &NIC{queues: c.Wire.Queues()}
	for queue := range n.queues {
		in, err := tap.NewLink(c.Wire, c.Host, queue, c.Room, c.Tail)
		if err != nil {
			return nil, err
		}
		out, err := tap.NewLink(c.Host, c.Wire, queue, c.Room, c.Tail)
		if err != nil {
			return nil, err
		}
		n.inbound = append(n.inbound, &worker{link: in, chains: &n.toHost, queue: queue})
		n.outward = append(n.outward, &worker{link: out, chains: &n.toWire, queue: queue})
	}
	n.Swap(c.Chain)
	n.SwapOutward(c.Outward)
	return n, nil
}

// Swap puts new chains in the place of the old ones on the way from wire to host, between two batches
// of each queue: no frame is lost, and none goes through parts of both. A batch under way ends on its
// old chain.
func (n *NIC) Swap(chain Chain) { n.toHost.set(chain, n.queues) }

// SwapOutward does the same on the way from host to wire.
func (n *NIC) SwapOutward(chain Chain) { n.toWire.set(chain, n.queues) }

// chains are the stages of one direction by queue.
type chains struct{ atomic.Pointer[[][]Stage] }

func (c *chains) set(chain Chain, queues int) {
	made := make([][]Stage, queues)
	if chain != nil {
		for queue := range made {
			made[queue] = chain(queue)
		}
	}
	c.Store(&made)
}

// Run moves frames until ctx ends, and then returns nil, or until an interface fails; a deleted one
// is an error that names it and wraps tap.ErrGone. When Run returns all workers have ended. A NIC
// runs once.
func (n *NIC) Run(ctx context.Context) error {
	workers := append(append([]*worker(nil), n.inbound...), n.outward...)
	errs := make(chan error, len(workers))
	var running sync.WaitGroup
	for _, w := range workers {
		running.Go(func() { errs <- w.run() })
	}
	var failure error
	select {
	case failure = <-errs:
	case <-ctx.Done():
	}
	for _, w := range workers {
		w.link.Stop()
	}
	running.Wait()
	if errors.Is(failure, tap.ErrStopped) {
		return nil
	}
	return failure
}

// Summary is what was moved so far.
type Summary struct {
	ToHost, ToWire tap.Tally
}

// Summary sums the counters of all workers. It may be called at any time; each worker's counts are
// those at the end of its latest batch.
func (n *NIC) Summary() Summary {
	return Summary{ToHost: sum(n.inbound), ToWire: sum(n.outward)}
}
