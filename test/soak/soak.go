// Package soak is a campaign against the running program: two hosts talk through
// it, over every mode and both IP versions, while links go down, addresses come and
// go, files are cut, processes are stopped and killed, logs are not read, disks are
// full, and somebody on the wire replays and forges. A model beside it knows for
// each datagram whether it may arrive.
//
//	host a's stack -- tapsec send -- line0 (cable) wire0 -- tapsec run -- host b's stack
//
// The cable is ours: it sees every frame that a program puts on the wire, before
// anything the attacker makes of it. A campaign goes in steps. Each disturbs a few
// things at once, puts them right again, waits until every path carries traffic in
// both directions, and then is quiet for a while: it does only what must cost
// nothing.
//
// At all times
//   - no datagram arrives twice, none that was not sent, none altered;
//   - nothing between the hosts' addresses is on the wire in clear;
//   - for one key no number and no IV is on the wire twice, across all restarts;
//   - no program ends by itself, panics, or shows a key in its log; one that is
//     asked to end does so, with exit code 0, whether or not anybody reads its log.
//
// In quiet
//   - every datagram sent arrives, but for those that a kernel counted as dropped at
//     one of the interfaces.
//
// After a disturbance everything carries traffic again within the time that Options
// gives. Losses until then are excused: links were down, processes stopped or gone,
// addresses or SAs missing, and after a kill a lease of numbers is not taken.
//
// The first step's seed repeats the same steps; it cannot repeat what else the
// machine does.
package soak

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Options describe a campaign. All but FailFast and Only are required.
type Options struct {
	Command  func(args ...string) *exec.Cmd // makes the command that starts the program
	Seed     uint64
	Time     time.Duration // after which no more steps begin
	Recover  time.Duration // within which everything carries traffic again after a disturbance
	Dir      string        // for files; exists
	Log      io.Writer     // what is done and found
	FailFast bool          // end with the first violation
	Only     []string      // names of the actions to draw from; none: all
}

// campaign is a running campaign, in the rig that this process is in.
type campaign struct {
	o        Options
	random   *rand.Rand // of the step
	began    time.Time
	sas      *associations
	ledgers  map[line]*ledger
	engines  []string
	hosts    [2]*host
	programs [2]*program
	cable    *cable
	attacker *attacker
	done     chan struct{}
	work     sync.WaitGroup

	killed    bool // a program was killed since everything last carried traffic
	disturbed atomic.Bool
	full      atomic.Bool   // the states' disk
	fragments atomic.Uint64 // that the stacks got
	unweighed sync.Once     // what cannot be read of the processes is reported once
	report    Report

	mu     sync.Mutex // guards the output
	recent []string   // the latest actions
	failed atomic.Bool
}

// Run runs a campaign until its time is over or ctx ends. The error is the
// laboratory's own; what the program did wrong is in the report.
func Run(ctx context.Context, o Options) (*Report, error) {
	c := newCampaign(o)
	c.say("seed %d: SEED=%d repeats the steps", o.Seed, o.Seed)
	err := c.open()
	if err == nil {
		c.steps(ctx)
		c.finish()
	}
	return &c.report, errors.Join(err, c.close())
}

func newCampaign(o Options) *campaign {
	c := &campaign{o: o, began: time.Now(), done: make(chan struct{}),
		report: Report{Actions: map[string]int{}, Violations: map[string]int{}}, ledgers: map[line]*ledger{}, engines: engines()}
	c.draw()
	c.sas = newAssociations(rand.New(rand.NewPCG(o.Seed, 2)))
	c.attacker = &attacker{c: c, random: rand.New(rand.NewPCG(o.Seed, 3))}
	for _, l := range lines() {
		c.ledgers[l] = &ledger{unsent: numbers{}, large: numbers{}, arrived: numbers{}}
	}
	return c
}

// draw begins the random numbers of a step, which do not depend on the outcome of
// earlier steps.
func (c *campaign) draw() {
	const others = 8 // of the campaign's sequences
	c.random = rand.New(rand.NewPCG(c.o.Seed, uint64(others+c.report.Steps)))
}

// open makes the laboratory and starts the programs, b's first.
func (c *campaign) open() (err error) {
	c.disturbed.Store(true)
	if err := c.mountState(); err != nil {
		return err
	}
	if c.cable, err = newCable(c); err != nil {
		return err
	}
	for number := range c.hosts {
		if c.hosts[number], err = newHost(c, number); err != nil {
			return err
		}
	}
	for _, number := range []int{1, 0} {
		p := newProgram(c, number)
		if p.split = number == 1 && c.random.IntN(3) == 0; p.split {
			c.say("host b's NIC and transport are two processes")
		}
		c.programs[number] = p
		if err := p.write(p.text()); err != nil {
			return err
		}
		p.start(c.engines[c.random.IntN(len(c.engines))])
	}
	c.work.Go(c.attacker.run)
	return nil
}

// steps goes on until the time is over.
func (c *campaign) steps(ctx context.Context) {
	c.settle()
	c.quiet()
	for ctx.Err() == nil && time.Since(c.began) < c.o.Time && !(c.o.FailFast && c.failed.Load()) {
		c.disturb()
		c.settle()
		c.quiet()
		c.report.Steps++
		c.draw()
	}
}

// disturb does a few disturbing things at once, and puts them right in reverse
// order.
func (c *campaign) disturb() {
	c.disturbed.Store(true)
	var undo []func()
	touched := map[string]bool{}
	for range 1 + c.random.IntN(3) {
		if back := c.act(disturbing, touched); back != nil {
			undo = append(undo, back)
		}
		time.Sleep(time.Duration(c.random.IntN(150)) * time.Millisecond)
	}
	time.Sleep(time.Duration(c.random.IntN(300)) * time.Millisecond)
	for _, back := range slices.Backward(undo) {
		back()
	}
	for number, h := range c.hosts {
		h.mend()
		c.programs[number].start(c.engines[0]) // if it has ended
	}
	for _, p := range c.programs {
		if slices.ContainsFunc(p.all(), (*process).gone) { // it no longer starts
			c.renew()
			return
		}
	}
}

// settle waits until every line carries what is sent from now on, large datagrams
// too: a kernel that has asked in vain for its neighbour drops what waits for the
// answer, and counts it nowhere. After a kill the lines that do not get more to carry,
// until their numbers are beyond the lease.
func (c *campaign) settle() {
	from := c.positions()
	missing := func() (all []line) {
		for _, l := range lines() {
			if _, highest := c.ledgers[l].position(); !highest.beyond(from[l]) {
				all = append(all, l)
			}
		}
		return all
	}
	begun := time.Now()
	for n, lacking := 0, missing(); len(lacking) > 0; n, lacking = n+1, missing() {
		if time.Since(begun) > c.o.Recover {
			c.violate("recovery", "after %s nothing carries %v\n%s", c.o.Recover, lacking, c.evidence())
			c.renew()
			return
		}
		for _, l := range lacking {
			if n%pushEvery == 0 {
				c.hosts[l.from].push(l, 1, true)
			}
			if c.killed && time.Since(begun) > c.o.Recover/10 {
				c.hosts[l.from].push(l, perTick, false)
				c.report.Pushed += perTick
			}
		}
		time.Sleep(5 * time.Millisecond)
	}
	c.killed = false
	c.disturbed.Store(false)
}

// renew starts both programs again, with fresh keys, if nothing else helped.
func (c *campaign) renew() {
	c.log("renew")
	for _, l := range lines() {
		c.sas.live[l] = c.sas.generation(l)
	}
	for _, p := range c.programs {
		p.endAll(sigTERM)
		c.try(errors.Join(p.write(p.text()), p.forget()))
	}
	for _, number := range []int{1, 0} {
		c.programs[number].start("auto")
	}
}

const (
	pushEvery = 16                     // looks, between large datagrams sent to see whether they get through
	grace     = 250 * time.Millisecond // between recovery and quiet
	arrival   = 15 * time.Second       // for what was sent in quiet
)

// quiet sends for a while and does only what must cost nothing. What is sent then
// must arrive, during that and after.
func (c *campaign) quiet() {
	if c.disturbed.Load() {
		return // it has not recovered
	}
	time.Sleep(grace)
	before, from := c.dropped(), c.positions()
	var undo []func()
	touched := map[string]bool{}
	for range c.random.IntN(3) {
		if back := c.act(harmless, touched); back != nil {
			undo = append(undo, back)
		}
	}
	time.Sleep(time.Duration(100+c.random.IntN(400)) * time.Millisecond)
	c.pause(func() {
		c.arrivals(from, before)
		before, from = c.dropped(), c.positions()
	})
	for _, back := range slices.Backward(undo) {
		back()
	}
	c.pause(func() {
		c.arrivals(from, before)
		for _, p := range c.programs {
			for _, process := range p.all() {
				process.weigh()
			}
			p.look()
		}
	})
}

// pause does something while nothing is sent.
func (c *campaign) pause(f func()) {
	for _, h := range c.hosts {
		h.sending.Lock()
		defer h.sending.Unlock()
	}
	f()
}

// positions returns how far each line has got.
func (c *campaign) positions() map[line]uint64 {
	from := map[line]uint64{}
	for l, ledger := range c.ledgers {
		from[l], _ = ledger.position()
	}
	return from
}

// arrivals waits for what was sent since from, and judges the losses.
func (c *campaign) arrivals(from map[line]uint64, before uint64) {
	missing := func() (text string, count uint64) {
		for _, l := range lines() {
			next, _ := c.ledgers[l].position()
			if lost := c.ledgers[l].missing(from[l], next); len(lost) > 0 {
				text += fmt.Sprintf("\n    %s: %d of %d to %d, %v", l, len(lost), from[l], next, lost[:min(len(lost), 12)])
				count += uint64(len(lost))
			}
		}
		return text, count
	}
	for deadline := time.Now().Add(arrival); ; time.Sleep(5 * time.Millisecond) {
		text, count := missing()
		if count == 0 {
			return
		}
		if time.Now().After(deadline) {
			if dropped := c.dropped() - before; dropped < count {
				c.violate("loss", "%d datagrams sent in quiet did not arrive, and the kernel dropped %d:%s\n%s", count, dropped, text, c.evidence())
			} else {
				c.report.Excused += count
			}
			return
		}
	}
}

// close ends what is left.
func (c *campaign) close() error {
	close(c.done)
	var err error
	for _, p := range c.programs {
		if p != nil && p.process != nil {
			p.endAll(sigKILL)
		}
	}
	if c.cable != nil {
		err = errors.Join(err, c.cable.close())
	}
	for _, h := range c.hosts {
		if h != nil {
			err = errors.Join(err, h.close())
		}
	}
	c.work.Wait()
	if c.cable != nil {
		c.report.Frames, c.report.Forged = c.cable.moved[0]+c.cable.moved[1], c.attacker.sent
	}
	err = errors.Join(err, c.unmountState())
	for _, l := range c.ledgers {
		c.report.Sent += l.next
		c.report.Arrived += l.count
	}
	return err
}

// over reports whether the campaign is over.
func (c *campaign) over() bool {
	select {
	case <-c.done:
		return true
	default:
		return false
	}
}

// files returns the path of a host's file.
func (c *campaign) file(host int, what string) string {
	return filepath.Join(c.o.Dir, hostNames[host]+what)
}

var errLeft = errors.New("is left")

// absent reports whether there is no such file.
func absent(path string) error {
	if _, err := os.Lstat(path); err == nil {
		return fmt.Errorf("%s %w", path, errLeft)
	}
	return nil
}
