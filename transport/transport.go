// Package transport is the TCP/IP transport behind a NIC with IPsec task offload. It reads
// the annotation of each frame, checks sequence numbers, does in software what the NIC left
// undone, applies the inbound policy, and gives a plain stack what is clean (RFC 4301
// section 5.2; contract, The transport).
//
// "The transport" is that side of a host; an SA's mode is always called
// transport mode, and what such an SA protects the transport portion.
//
// All it knows of the NIC's work is the annotation: a value, if the NIC is in the
// same process, else read from the trailer after the frame. It has no
// cryptography: software is a second NIC that lacks nothing, and what it returns
// is judged like any other frame. A Receiver does no I/O.
package transport

import (
	"cmp"
	"net/netip"
	"slices"
	"sync"
	"time"

	"tapsec/internal/fragment"
	"tapsec/internal/ledger"
	"tapsec/internal/replay"
	"tapsec/sa"
	"tapsec/status"
)

// Check opens in place what it can of a frame, and returns it, as long as it was and
// without a trailer, with the annotation, nil where there is none. Both stand until the
// next call. It is a NIC in this process.
type Check func(frame []byte) ([]byte, *status.Trailer)

// Fallback is the host's own IPsec: it opens what the NIC did not.
type Fallback interface {
	// Check is that of a NIC that lacks nothing and holds every SA.
	Check(frame []byte) ([]byte, *status.Trailer)
	// Mark is the ESN mark by which Check completes the SA's numbers. The transport
	// raises it by what the NIC has authenticated.
	Mark(id sa.ID) *sa.Mark
	// Retry is Check by a NIC that holds s alone (an AH with the ESP of its bundle)
	// and takes high for the high half of its ESN.
	Retry(frame []byte, s *sa.SA, high uint32) ([]byte, *status.Trailer)
}

// NIC is the control interface of the NIC. Both calls come from the frame path and must
// not wait.
type NIC interface {
	Update(s *sa.SA, high uint32) // the SA's numbers went on to this high half
	Delete(s *sa.SA)              // delete the offloaded SA, as the NIC asked
}

// Config is what a Receiver needs. Only Fallback has to be there.
type Config struct {
	SAs      [][]*sa.SA   // inbound: each one SA, or the AH and the ESP SA of a bundle
	Policy   []sa.Policy  // first match decides; without rules everything passes
	Local    []netip.Addr // our own addresses; nil: every address is ours
	Fallback Fallback     // bound to this Receiver alone
	NIC      NIC          // nil: not connected
	Audit    func(Event)  // called beside the frames, at a bounded rate
	Mirror   func([]byte) // gets the frames dropped for a failed check, with their trailers
	ICMP     func([]byte) // sees each ICMP frame once: one that came through an SA only if delivered, any other whatever the policy says
	Limits   Limits       // of reassembly
	Ledger   *Ledger      // where windows and lifetimes live; nil: in the Receiver
}

// Types of this module that programs outside of it name here.
type (
	// Limits bound reassembly: bytes, datagrams at once and their age. A zero field means
	// the default.
	Limits = fragment.Limits
	// Ledger is where windows and lifetimes live as long as the keys (contract, Lifecycle).
	Ledger = ledger.Ledger
	// WindowState is a replay window in numbers.
	WindowState = replay.State
)

// OpenLedger opens a Ledger that lives in a file, which it makes and locks; no window of it
// takes a number twice, whatever ends the program. Its Close writes down the last numbers.
// Where the file cannot be written to, say is called once with the error, from another
// goroutine, and with nil once it can be again.
func OpenLedger(path string, say func(error)) (*Ledger, error) { return ledger.Open(path, say) }

// Receiver judges frames, one at a time, since any two may be of one SA. Several
// goroutines may use it.
type Receiver struct {
	mu        sync.Mutex
	fallback  Fallback
	nic       NIC
	audit     auditor
	ledger    *ledger.Ledger
	mirror    func([]byte)
	icmp      func([]byte)
	fragments *fragment.Buffer
	rules     // in force; Replace changes them
	counters  counters
	failing   []*association // those with failures that Failures has not told of
	now       int64          // ns since the Unix epoch: when the latest frame was received
	clock     time.Duration  // the ledger's, which lifetimes run on
	inWork    frame          // kept for its memory alone
	read      status.Trailer // of the frame in work, where it came with a trailer
	trailers  Check          // reads that
}

// rules are what a Receiver judges frames by.
type rules struct {
	sas      *sa.Table[*association]
	policy   []sa.Policy
	local    map[netip.Addr]bool
	anywhere bool // every address is ours
	encap    int  // number of UDP-encapsulated SAs: if there are any, the port is ours

	mortal map[*association]bool // those with a lifetime, for Tick: most of many SAs have none
}

// New makes a Receiver. The error names an SA that occurs twice.
func New(c Config) (*Receiver, error) {
	r := &Receiver{
		fallback: c.Fallback, nic: c.NIC, mirror: c.Mirror, icmp: c.ICMP,
		audit:     auditor{report: c.Audit},
		ledger:    cmp.Or(c.Ledger, ledger.New()),
		fragments: fragment.New(c.Limits),
		rules:     rules{sas: sa.NewTable[*association](0), mortal: map[*association]bool{}},
	}
	r.trailers = r.readTrailer
	return r, r.Replace(c.SAs, c.Policy, c.Local)
}

// Replace changes SAs, policy and addresses between two frames. An SA that the ledger knows
// keeps its window and lifetime, whatever their limits are now. On an error nothing has
// changed.
func (r *Receiver) Replace(sas [][]*sa.SA, policy []sa.Policy, local []netip.Addr) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	next := rules{sas: r.sas, policy: policy}
	next.own(local)
	bundles := make([][]*entry, 0, len(sas))
	before := r.sas.List()
	for _, bundle := range sas {
		entries := r.sas.Standing(bundle)
		for _, s := range bundle {
			next.encap += encaps(s)
			if len(entries) < len(bundle) {
				entries = append(entries, r.associate(s))
			}
		}
		bundles = append(bundles, entries)
	}
	if err := r.sas.Replace(bundles); err != nil {
		return err
	}
	next.mortal = map[*association]bool{}
	for _, bundle := range bundles {
		for _, e := range bundle {
			next.settle(e)
		}
	}
	r.rules = next
	for _, e := range before {
		if now := r.sas.Find(e.ID()); now == nil || now.Value.known != e.Value.known {
			r.ledger.Leave(e.Value.known)
		}
	}
	return nil
}

// own makes these addresses ours; nil means all.
func (r *rules) own(local []netip.Addr) {
	r.local, r.anywhere = map[netip.Addr]bool{}, local == nil
	for _, a := range local {
		r.local[a] = true
	}
}

// SetLocal changes our addresses between two frames; nil means all.
func (r *Receiver) SetLocal(local []netip.Addr) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.own(local)
}

// settle gives an association its entry of the table.
func (r *rules) settle(e *entry) {
	e.Value.entry, e.Value.released = e, false
	e.Value.known.Configure(e.SA)
	if e.Lifetimes != (sa.Lifetimes{}) {
		r.mortal[e.Value] = true
	}
}

func encaps(s *sa.SA) int {
	if s.InUDP() {
		return 1
	}
	return 0
}

// Add adds SAs between two frames, all or none. Software must have them already. The error
// names an SA that exists.
func (r *Receiver) Add(sas [][]*sa.SA) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	var bundles [][]*entry
	for _, bundle := range sas {
		var entries []*entry
		for _, s := range bundle {
			entries = append(entries, r.associate(s))
		}
		bundles = append(bundles, entries)
	}
	if err := r.sas.AddAll(bundles); err != nil {
		return err
	}
	for _, e := range slices.Concat(bundles...) {
		r.settle(e)
		r.encap += encaps(e.SA)
	}
	return nil
}

// Delete removes an SA, and the other half of its bundle, between two frames. The ledger
// keeps how far it got. The error is sa.ErrUnknown.
func (r *Receiver) Delete(id sa.ID) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	e := r.sas.Find(id)
	if e == nil {
		return sa.ErrUnknown
	}
	for _, gone := range []*entry{e, e.Partner} {
		if gone != nil {
			r.leave(gone)
			r.ledger.Leave(gone.Value.known)
		}
	}
	return r.sas.Delete(e.Handle)
}

// leave takes back what settle and Add did for an SA.
func (r *rules) leave(e *entry) {
	r.encap -= encaps(e.SA)
	delete(r.mortal, e.Value)
}

// State is what can be seen of one SA at run time; ok is false if there is none.
func (r *Receiver) State(id sa.ID) (_ SAState, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	e := r.sas.Find(id)
	if e == nil {
		return SAState{}, false
	}
	return r.state(e.Value, time.Now(), r.ledger.Clock()), true
}

// Batch judges frames with trailers in order and returns those that the stack gets, in
// the caller's slice. It counts the others.
func (r *Receiver) Batch(frames [][]byte) [][]byte { return r.BatchFrom(r.trailers, frames, nil) }

// BatchFrom is Batch for frames that a NIC has yet to check. What they end in is theirs.
// judged, if not nil, is told what became of each; it must not wait.
func (r *Receiver) BatchFrom(nic Check, frames [][]byte, judged func(Verdict, Reason)) [][]byte {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.clock = r.ledger.Clock()
	clean := frames[:0]
	for _, b := range frames {
		b, v, reason := r.receive(nic(b))
		if judged != nil {
			judged(v, reason)
		}
		if v.Clean() {
			clean = append(clean, b)
		}
	}
	return clean
}

// Judge judges one frame with a trailer. If the verdict is Deliver or Software,
// clean is what the stack gets: Ethernet header, tags, and the IP packet at its
// exact length. It lies in the frame's memory, or is new if put together from fragments.
func (r *Receiver) Judge(annotated []byte) (clean []byte, v Verdict, reason Reason) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.clock = r.ledger.Clock()
	return r.receive(r.readTrailer(annotated))
}

// receive judges a frame by its annotation and counts it.
func (r *Receiver) receive(delivered []byte, t *status.Trailer) ([]byte, Verdict, Reason) {
	f := &r.inWork
	*f = frame{carriedBy: f.carriedBy[:0]}
	reason := r.judge(f, delivered, t)
	if reason == None {
		reason = f.refused
	}
	v := Deliver
	switch {
	case reason == FragmentHeld:
		v = Held
	case reason != None:
		v = Drop
		r.drop(f, reason)
	case f.inSoftware:
		v = Software
	}
	r.count(f, v, reason)
	if !v.Clean() {
		return nil, v, reason
	}
	return f.bytes, v, reason
}

// judge is what happens to a frame.
//
//  1. Read the annotation; without one nothing is known about the frame.
//  2. Numbers with a valid ICV go to their windows, outermost first. What failed
//     its check ends here.
//  3. Take off what verified.
//  4. If IPsec is left, software opens it; a fragment is reassembled. Then again
//     from 2.
//  5. The rest is clear, and the policy decides.
func (r *Receiver) judge(f *frame, delivered []byte, t *status.Trailer) Reason {
	reason := r.readAnnotation(f, delivered, t)
	for again := true; again && reason == None; {
		if reason = r.checkRecords(f); reason != None {
			return reason
		}
		if reason = f.strip(); reason != None {
			return reason
		}
		again, reason = r.next(f)
	}
	return reason
}
