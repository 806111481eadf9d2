package transport

import (
	"fmt"

	"tapsec/internal/reason"
)

// Verdict says what became of a frame.
type Verdict uint8

// The verdicts.
const (
	Deliver  Verdict = iota + 1 // clean, and the NIC had done all the work
	Software                    // clean, after work that the NIC had left
	Held                        // a fragment that waits for the others
	Drop                        // not for the stack
)

// Clean reports whether the stack gets the frame.
func (v Verdict) Clean() bool { return v == Deliver || v == Software }

// String names the verdict.
func (v Verdict) String() string {
	names := [...]string{Deliver: "deliver", Software: "software", Held: "held", Drop: "drop"}
	if v == 0 || int(v) >= len(names) {
		return fmt.Sprintf("verdict(%d)", uint8(v))
	}
	return names[v]
}

// Reason says why a frame was not delivered, or is to be reported.
type Reason uint8

// The reasons.
const (
	None Reason = iota // delivered

	NoAnnotation
	BadAnnotation
	Decapsulated

	ICV
	Protocol
	Length
	Padding
	NoSA
	Unsupported
	Replay
	Expired
	NoLease

	Dummy
	InnerNotIP
	ECN
	Selector

	Clear
	OtherSA
	Discard
	NoPolicy

	BadIP
	IPChecksum
	ShortChain
	Hidden
	KeepAlive

	FragmentHeld
	FragmentOverlap
	FragmentBad
	FragmentDuplicate

	SoftExpired
	Resynchronised

	NumReasons = iota
)

var reasons = reason.New[Reason]("transport", []reason.Text{
	None:          {"none", "nothing was wrong"},
	NoAnnotation:  {"no-annotation", "the frame ends in no valid trailer"},
	BadAnnotation: {"bad-annotation", "the trailer contradicts itself or the frame"},
	Decapsulated:  {"decapsulated", "the NIC has taken headers off (form: decap): set form: inplace"},

	ICV:         {"icv", "an ICV is wrong"},
	Protocol:    {"protocol", "the IPsec protocols are not those of the SA"},
	Length:      {"length", "a length is impossible"},
	Padding:     {"padding", "ESP's pad bytes are not 1, 2, 3 ..."},
	NoSA:        {"no-sa", "there is no SA for this IPsec packet to us"},
	Unsupported: {"unsupported", "neither the NIC nor software can process this IPsec packet"},
	Replay:      {"replay", "the sequence number was seen before, is older than the window, or is 0"},
	Expired:     {"expired", "the hard lifetime of the SA is over"},
	NoLease:     {"no-lease", "the sequence number is beyond those in the state file, and no more can be written there"},

	Dummy:      {"dummy", "a dummy packet (next header 59) has done its duty"},
	InnerNotIP: {"inner-not-ip", "a tunnel carried no whole IP packet"},
	ECN:        {"ecn", "the tunnel met congestion, and the packet inside is not ECN-capable"},
	Selector:   {"selector", "the packet is none that its SA may carry"},

	Clear:    {"clear", "policy wants this packet protected, and it came in clear"},
	OtherSA:  {"other-sa", "policy wants this packet carried by another SA"},
	Discard:  {"discard", "policy discards this packet"},
	NoPolicy: {"no-policy", "no rule of the policy is for this packet"},

	BadIP:      {"bad-ip", "the IP header or its lengths do not fit"},
	IPChecksum: {"ip-checksum", "the IPv4 header checksum is wrong"},
	ShortChain: {"short-chain", "a fragment parts the headers that policy and selectors look at"},
	Hidden:     {"hidden", "the frame is too short, or may hide an IP packet from the policy"},
	KeepAlive:  {"keep-alive", "a UDP keep-alive has done its duty"},

	FragmentHeld:      {"fragment-held", "a fragment waits for the others"},
	FragmentOverlap:   {"fragment-overlap", "fragments overlap"},
	FragmentBad:       {"fragment-bad", "what the fragments would make is no packet"},
	FragmentDuplicate: {"fragment-duplicate", "the fragment was there already"},

	SoftExpired:    {"soft-expired", "the soft lifetime of the SA is over: time to rekey"},
	Resynchronised: {"resynchronised", "after a loss of more than 2^32 packets the SA's numbers are known again"},
})

// Reasons lists all reasons.
func Reasons() []Reason { return reasons.All() }

// String gives the short name, as in counters and JSON.
func (r Reason) String() string { return reasons.Name(r) }

// Sentence gives the reason in words.
func (r Reason) Sentence() string { return reasons.Sentence(r) }

// Qualified gives the short name after "transport/", for where nothing else says whose
// reason it is.
func (r Reason) Qualified() string { return reasons.Qualified(r) }

// quiet reports whether a drop is no security event.
func (r Reason) quiet() bool { return r == Dummy || r == KeepAlive || r == FragmentDuplicate }

// Failed reports whether the frame failed one of the NIC's checks.
func (r Reason) Failed() bool { return r >= ICV && r <= Padding }
