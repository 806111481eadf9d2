package diagnosis

import (
	"fmt"
	"net/netip"

	"tapsec/internal/account"
	"tapsec/sa"
	"tapsec/status"
	"tapsec/wire"
)

// of is what was found out about a subject.
//
//  1. Take a kept frame that is not explained yet (the first, the last, the second and
//     so on), and try near misses until its ICV verifies.
//  2. Try that near miss on the other frames.
//  3. If a separate cipher still makes no sense of them, look for that, too.
//  4. Say what is left unexplained, and what good frames show.
func (d *Case) of(s *subject) []account.Finding {
	if s.done {
		return s.findings
	}
	s.done = true
	budget := budget{min(MaxTries, d.tries), 0}
	frames := fromBothEnds(s.samples.ordered())
	left := 0
	for _, x := range frames {
		if !x.explained && !d.explain(s, x, frames, &budget) {
			left++
		}
	}
	d.tries -= budget.spent
	s.cutShort()
	if left > 0 && s.sa != nil {
		s.unexplained(left, len(frames), budget.spent)
	}
	s.inside()
	d.twins.settle()
	s.twinless(d.twins)
	return s.findings
}

// budget is how many trials may be made, and how many were.
type budget struct{ max, spent int }

func (b *budget) spend() bool {
	if b.spent == b.max {
		return false
	}
	b.spent++
	return true
}

// fromBothEnds orders samples: the first, the last, the second, and so on.
func fromBothEnds(in []*sample) (out []*sample) {
	for len(in) > 1 {
		out = append(out, in[0], in[len(in)-1])
		in = in[1 : len(in)-1]
	}
	return append(out, in...)
}

// explain looks for the near miss by which x verifies, and says for how many other frames of
// its SA it holds.
func (d *Case) explain(s *subject, x *sample, others []*sample, tries *budget) bool {
	all := d.ofNone(x)
	if s.sa != nil {
		all = d.ofSA(s.sa, x)
	}
	m, got := d.first(all, x, tries)
	if got == none {
		return false
	}
	s.say(&m, d.spread(&m, others, tries), len(s.samples.all))
	if got == verifies && m.cause != Padding && m.cause != EncryptionKey {
		if n, got := d.first(chain(padding(&m.sa), d.encryptionKeys(&m.sa)), x, tries); got != none {
			s.say(&n, 1, 1)
		}
	}
	return true
}

// first is the first near miss with enough evidence.
func (d *Case) first(all misses, x *sample, tries *budget) (miss, evidence) {
	for m := range all {
		if !tries.spend() {
			break
		}
		if got := d.trial.try(&m, x); got >= m.needs {
			return m, got
		}
	}
	return miss{}, none
}

// spread marks the samples that a near miss explains, and counts them.
func (d *Case) spread(m *miss, others []*sample, tries *budget) (n int) {
	for _, x := range others {
		if x.explained || !tries.spend() {
			continue
		}
		got := d.trial.try(m, x)
		if next, ok := m.wrapped(x); ok && got < m.needs && tries.spend() {
			got = d.trial.try(&next, x)
		}
		if got >= m.needs {
			x.explained = true
			n++
		}
	}
	return n
}

func (s *subject) add(certain bool, c Cause, format string, args ...any) {
	s.findings = append(s.findings, account.Finding{Certain: certain, Cause: string(c), Sentence: fmt.Sprintf(format, args...)})
}

// say notes a near miss by which n of the kept frames verify.
func (s *subject) say(m *miss, n, kept int) {
	done := "verify"
	if m.needs == sensible {
		done = "make sense"
	}
	if n == 1 {
		done = map[string]string{"verify": "verifies", "make sense": "makes sense"}[done]
	}
	s.add(true, m.cause, "%s: %s, %s %s", s.failing(s.failed), m.text, counted(n, kept), done)
}

// counted is how many of the frames that were tried.
func counted(n, of int) string {
	if of == 1 {
		return "the 1 frame tried"
	}
	return fmt.Sprintf("%d of the %d frames tried", n, of)
}

// failing begins a sentence about n frames.
func (s *subject) failing(n int) string {
	if s.sa == nil {
		return frames(n) + " of " + s.header.String() + verb(n, " match", " matches") + " no SA"
	}
	switch all := s.good + s.failed; {
	case n == all && n > 1:
		return fmt.Sprintf("All %d frames of %s fail", n, s.sa.Name)
	default:
		return fmt.Sprintf("%d of %s of %s%s", n, frames(all), s.sa.Name, verb(n, " fail", " fails"))
	}
}

func frames(n int) string { return fmt.Sprintf("%d %s", n, verb(n, "frames", "frame")) }

func verb(n int, many, one string) string {
	if n == 1 {
		return one
	}
	return many
}

// cutShort notes frames whose ends were not captured.
func (s *subject) cutShort() {
	const remedy = "capture anew with a larger snap length (tcpdump -s 0)"
	their := func(n int) string { return verb(n, "their ends were", "its end was") }
	if n := s.cut - s.ending; n > 0 {
		s.add(true, Cut, "%s of %s cannot be judged: %s not captured; %s", frames(n), s.sa.Name, their(n), remedy)
	}
	if n := s.ending; n > 0 {
		s.add(false, Cut, "%s of %s %s before the IP length does: %s not captured, or never there; %s", frames(n), s.sa.Name, verb(n, "end", "ends"), their(n), remedy)
	}
}

// unexplained notes that nothing explains left of the kept frames.
func (s *subject) unexplained(left, kept, tries int) {
	n := s.failed - s.cut
	switch {
	case s.good > 0 && left == kept && s.last == n && n > 1:
		s.add(false, NothingFound, "The last %d of %d frames of %s fail, and none of %d near misses verifies the %d tried: rekeyed under the same SPI, with a key that is not known",
			n, s.good+s.failed, s.sa.Name, tries, kept)
	case s.good > 0 && left == kept:
		s.add(false, Damaged, "%s while the others are good, and none of %d near misses verifies the %d tried: damaged on the way, or forged",
			s.failing(n), tries, kept)
	case len(s.findings) > 0:
		s.add(false, NothingFound, "%s, and none of %d near misses verifies %d of the %d tried: those have another cause, or more than one",
			s.failing(n), tries, left, kept)
	default:
		s.add(false, NothingFound, "%s, and none of %d near misses verifies %d of the %d tried: it is the key of no SA that is known, no other algorithm, ICV length or number",
			s.failing(n), tries, left, kept)
	}
}

// inside notes what the first good frames showed.
func (s *subject) inside() {
	if s.sa == nil {
		return
	}
	name, of := s.sa.Name, s.insides
	switch {
	case s.foreign == 0:
	case s.next == wire.ProtoAggFrag:
		s.add(true, Mode, "%s is good, and %d of the %d good frames looked at carry AGGFRAG payloads (protocol %d): its mode is IP-TFS (RFC 9347), whose packets are checked, but not opened",
			name, s.foreign, of, s.next)
	case s.sa.Mode == sa.Tunnel && len(s.findings) == 0:
		s.add(upper(s.next), Mode, "%s is a tunnel, and %d of the %d good frames looked at carry no IP packet but protocol %d: its mode is transport", name, s.foreign, of, s.next)
	case s.sa.Mode == sa.Transport:
		s.add(false, Mode, "%s has transport mode, and %d of the %d good frames looked at carry an IP packet: its mode is tunnel, or its hosts have a tunnel of their own in it",
			name, s.foreign, of)
	}
	all := s.sums[wire.SumRight] + s.sums[wire.SumPartial] + s.sums[wire.SumWrong]
	if n := s.sums[wire.SumPartial]; n > 0 {
		s.add(true, ChecksumOffload, "%s is good, and %d of the %d TCP or UDP checksums looked at in it are unfinished: the sender's NIC was to compute them", name, n, all)
	}
	if n := s.sums[wire.SumWrong]; n > 0 && s.sa.Encap && s.portion == status.TransportPortion {
		s.add(false, NATChecksum, "%s is good, and %d of the %d TCP or UDP checksums looked at in it are wrong: a NAT changed the addresses (RFC 3948 section 3.1.2)", name, n, all)
	}
}

// upper reports whether a number is one that transport mode carries every day.
func upper(next uint8) bool {
	switch next {
	case wire.ProtoTCP, wire.ProtoUDP, wire.ProtoICMP, wire.ProtoICMPv6, 47, 132:
		return true
	}
	return false
}

// route is an SA's addresses as people read them.
func route(src, dst netip.Addr) string {
	if !src.IsValid() {
		return "to " + dst.String()
	}
	return "from " + src.String() + " to " + dst.String()
}
