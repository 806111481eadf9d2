package outbound

import "tapsec/internal/reason"

// Reason says what became of a frame. Each frame has one. Those from Pieces on are counted
// beside that.
type Reason uint8

// The reasons.
const (
	Sealed Reason = iota
	Fragmented
	NotIP
	Link
	Bypassed
	Unprotected

	Discarded
	NoSA
	HeldBack
	TooLong
	Fragment
	NumbersUsed
	NoLease
	Unsealable
	Malformed
	ShortChain
	Hidden

	Pieces
	Replies
	Unanswered
	Narrowed
	Unbelieved

	NumReasons = iota
)

var reasons = reason.New[Reason]("outbound", []reason.Text{
	Sealed:      {"sealed", "sent as its SAs make it"},
	Fragmented:  {"fragmented", "sent, sealed where it had to be, as fragments since it was longer than the wire's MTU"},
	NotIP:       {"not-ip", "in clear: the frame carries no IP packet"},
	Link:        {"link", "in clear: neighbour discovery, multicast, broadcast or link-local"},
	Bypassed:    {"bypassed", "in clear: a rule of the policy says so"},
	Unprotected: {"unprotected", "in clear: no rule and no SA is for the packet"},

	Discarded:   {"discarded", "dropped: a rule of the policy says so"},
	NoSA:        {"no-sa", "dropped: the packet is to be protected, and no SA may carry it"},
	HeldBack:    {"held-back", "dropped: no SA and no rule is for the packet, but one that was in force or is to come would protect it"},
	TooLong:     {"too-long", "dropped: sealed it is longer than the wire's MTU, and it may not be fragmented"},
	Fragment:    {"fragment", "dropped: the stack sent a fragment, which transport mode does not take"},
	NumbersUsed: {"numbers-used", "dropped: the sequence numbers of an SA are used up; it must be rekeyed"},
	NoLease:     {"no-lease", "dropped: the sequence number is beyond those in the state file, and no more can be written there"},
	Unsealable:  {"unsealable", "dropped: an SA cannot be applied to the packet"},
	Malformed:   {"malformed", "dropped: the IP header or its lengths do not fit"},
	ShortChain:  {"short-chain", "dropped: a fragment parts the headers that policy and selectors look at"},
	Hidden:      {"hidden", "dropped: the frame is too short, or may hide an IP packet from the policy"},

	Pieces:     {"fragments", "fragments sent"},
	Replies:    {"icmp", "ICMP errors that told the stack which MTU fits"},
	Unanswered: {"icmp-not-sent", "packets too long for which no ICMP error was due, or the rate allowed none"},
	Narrowed:   {"path-mtu", "a router says that the packets of an SA are too long for their path; what is longer is answered or cut now"},
	Unbelieved: {"path-mtu-refused", "such reports of no SA of ours, of a number not sent lately, or of an MTU that no path has or that is no news"},
})

// Dropped reports whether the frame was not sent.
func (r Reason) Dropped() bool { return r >= Discarded && r < Pieces }

// Reasons lists all reasons.
func Reasons() []Reason { return reasons.All() }

// String gives the short name, as counters and JSON have it.
func (r Reason) String() string { return reasons.Name(r) }

// Sentence says what was counted.
func (r Reason) Sentence() string { return reasons.Sentence(r) }

// Qualified gives the short name after "outbound/", for where nothing else tells whose
// reason it is.
func (r Reason) Qualified() string { return reasons.Qualified(r) }
