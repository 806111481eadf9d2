// Package transport is the TCP/IP transport behind a NIC with IPsec task
// offload. It reads the annotation of each frame, checks sequence numbers, does
// in software what the NIC left undone, holds the packet against the inbound
// policy, and gives a plain stack what is clean (RFC 4301 section 5.2; contract,
// The transport).
//
// All it knows of the NIC's work is the trailer behind the frame. It has no
// cryptography: software is a second NIC that lacks nothing, and what comes back
// from there is judged like any other frame. It does no I/O.
package transport

import (
	"net/netip"
	"sync"

	"tapsec/internal/fragment"
	"tapsec/sa"
	"tapsec/status"
	"tapsec/wire"
)

// Fallback is the host's own IPsec: it opens what the NIC did not.
type Fallback interface {
	// Process annotates a frame like a NIC that lacks nothing and holds every
	// SA. The trailer goes into the frame's spare capacity where there is room.
	Process(frame []byte) []byte
	// Mark is the ESN mark that Process completes the SA's numbers with. The
	// transport raises it with what the NIC authenticated.
	Mark(id sa.ID) *sa.Mark
	// Retry is Process by a NIC that holds s alone, an AH with the ESP of its
	// bundle, and presumes that the high half of its ESN is high.
	Retry(frame []byte, s *sa.SA, high uint32) []byte
}

// NIC is the control interface of the NIC in front. Both calls come from the
// frame path and must not wait.
type NIC interface {
	Update(s *sa.SA, high uint32) // the SA's numbers went on to this high half
	Delete(s *sa.SA)              // take back the offloaded SA, as the NIC asked
}

// Config is what a Consumer needs. Only Fallback has to be there.
type Config struct {
	SAs      [][]*sa.SA      // inbound: each one SA, or the AH and the ESP SA of a bundle
	Policy   []sa.Policy     // first match decides; without rules everything passes
	Local    []netip.Addr    // our own addresses; nil: every address is
	Fallback Fallback        // bound to this Consumer alone
	NIC      NIC             // nil: not connected
	Audit    func(Event)     // called beside the frames, at a bounded rate
	Mirror   func([]byte)    // gets the frames dropped for a failed check, annotation included
	Limits   fragment.Limits // of reassembly
	Began    int64           // ns since the Unix epoch: when the SAs' lifetimes begin
}

// Consumer judges frames. It may be used by several goroutines; each frame waits
// for the one before, since both may be of one SA.
type Consumer struct {
	mu        sync.Mutex
	fallback  Fallback
	nic       NIC
	audit     auditor
	mirror    func([]byte)
	fragments *fragment.Buffer
	rules     // in force; Replace changes them
	counters  counters

	// The frame in work.
	annotated []byte         // as it came, from the NIC or from software
	frame     []byte         // without trailer
	l3        int            // offset behind the EtherType; 0 where there is no IP packet
	trailer   status.Trailer //
	entries   [status.MaxRecords]*association
	now       int64          // receive time
	via       []*association // the SAs that carried what is left, outermost first
	softly    bool           // software did some of it
	culprit   *status.Record // the record at which the work ended
	behind    *association   // the SA whose number the NIC has not completed as we would
	doubt     doubt          // what software is to presume of the number in front
	refused   Reason         // why the frame will not be delivered although the work goes on
}

// rules are what a Consumer holds frames against.
type rules struct {
	sas      *sa.Table[*association]
	policy   []sa.Policy
	local    map[netip.Addr]bool
	anywhere bool // every address is ours
	encap    bool // some SA is UDP-encapsulated: the port is ours
}

// New makes a Consumer. The error names an SA that is there twice.
func New(c Config) (*Consumer, error) {
	t := &Consumer{
		fallback: c.Fallback, nic: c.NIC, mirror: c.Mirror,
		audit:     auditor{report: c.Audit},
		fragments: fragment.New(c.Limits),
		rules:     rules{sas: sa.NewTable[*association](0)},
	}
	return t, t.Replace(c.SAs, c.Policy, c.Local, c.Began)
}

// Replace changes SAs, policy and addresses between two frames. An SA that was
// there before keeps its window and lifetime, whatever their limits are now;
// those of a new one begin at began. On an error nothing has changed.
func (c *Consumer) Replace(sas [][]*sa.SA, policy []sa.Policy, local []netip.Addr, began int64) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	next := rules{sas: c.sas, policy: policy, local: map[netip.Addr]bool{}, anywhere: local == nil}
	for _, a := range local {
		next.local[a] = true
	}
	var bundles [][]*entry
	for _, bundle := range sas {
		var entries []*entry
		for _, s := range bundle {
			next.encap = next.encap || s.Encap
			entries = append(entries, c.associate(s, began))
		}
		bundles = append(bundles, entries)
	}
	if err := c.sas.Replace(bundles); err != nil {
		return err
	}
	for _, e := range c.sas.List() {
		e.Value.entry, e.Value.released = e, false
	}
	c.rules = next
	return nil
}

// Batch judges frames in order and returns those that the stack gets. What it
// keeps it has counted. The slice is the caller's, shortened.
func (c *Consumer) Batch(frames [][]byte) [][]byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	clean := frames[:0]
	for _, f := range frames {
		if f, v, _ := c.one(f); v.Clean() {
			clean = append(clean, f)
		}
	}
	return clean
}

// Judge judges one annotated frame. Where the verdict is Deliver or Software,
// clean is what the stack gets: Ethernet header, tags, and the IP packet at its
// exact length. It lies in the frame's memory, or is a new one put together of
// fragments.
func (c *Consumer) Judge(frame []byte) (clean []byte, v Verdict, r Reason) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.one(frame)
}

func (c *Consumer) one(frame []byte) ([]byte, Verdict, Reason) {
	c.via, c.softly, c.culprit, c.behind, c.refused = c.via[:0], false, nil, nil, None
	c.doubt = doubt{}
	reason := c.judge(frame)
	if reason == None {
		reason = c.refused
	}
	v := Deliver
	switch {
	case reason == FragmentHeld:
		v = Held
	case reason != None:
		v = Drop
		c.drop(reason)
	case c.softly:
		v = Software
	}
	c.count(v, reason)
	if !v.Clean() {
		return nil, v, reason
	}
	return c.frame, v, reason
}

// judge is a frame's way.
//
//  1. Read the trailer; without a valid one nothing can be said of the frame.
//  2. Numbers with a valid ICV go to their windows, outermost first. What failed
//     its check ends here.
//  3. Take off what verified.
//  4. What is left and still IPsec goes through software, a fragment through
//     reassembly; then again from 2.
//  5. The rest is clear, and the policy's.
func (c *Consumer) judge(frame []byte) Reason {
	reason := c.read(frame)
	for again := true; again && reason == None; {
		if reason = c.settle(); reason != None {
			return reason
		}
		if reason = c.strip(); reason != None {
			return reason
		}
		again, reason = c.rest()
	}
	return reason
}

// read takes the annotation off a frame that comes from the NIC. Where there is
// none the time is the frame's before.
func (c *Consumer) read(frame []byte) Reason {
	c.frame, c.l3, c.trailer.N = frame, 0, 0
	body, t, err := status.Split(frame)
	if err != nil {
		return NoAnnotation
	}
	c.now = t.Received
	if t.Form != status.InPlace {
		return Decapsulated
	}
	return c.take(frame, body, &t)
}

// take begins the work on what an annotation tells.
func (c *Consumer) take(annotated, body []byte, t *status.Trailer) Reason {
	c.annotated, c.trailer, c.culprit = annotated, *t, nil
	if !agrees(t, len(body)) {
		return BadAnnotation
	}
	c.frame = body[:t.WireLen]
	etherType, l3, ok := wire.Ethernet(c.frame)
	switch {
	case !ok || hides(etherType):
		return Hidden
	case etherType == wire.EtherIPv4 || etherType == wire.EtherIPv6:
		c.l3 = l3
	case t.N > 0:
		return BadAnnotation
	}
	return None
}

// hides tells whether a frame of that type may hold an IP packet that the policy
// could not see, but a stack behind could: PPPoE, MPLS, provider backbone.
func hides(etherType uint16) bool {
	switch etherType {
	case 0x8864, 0x8847, 0x8848, 0x88e7:
		return true
	}
	return false
}
