package strongswan

import (
	"regexp"
	"strings"
	"testing"

	"tapsec/internal/lab/rig"
	"tapsec/sa"
	"tapsec/test/interop"
	"tapsec/test/program"
)

// TestRekey has tapsec be the NIC in front of b, for each suite and with pings of
// both IP versions, with some suites bulk transfers too, before, during and after
// a rekey that either side begins.
//
// From b to a frames pass untouched. From a to b tapsec opens what it has the key
// of. A frame opened in place would be of no use to b's daemon, which expects to
// open it itself; so the form is decap: b's stack gets the inner packet straight
// from the NIC, and answers through its daemon. What tapsec has no key for reaches
// b as it was, and there b's daemon opens it. Hence all traffic arrives, also
// while new keys are on their way. That the form in place opens the same frames to
// the same packets is checked on what was heard on the wire.
func TestRekey(t *testing.T) {
	require(t)
	l := newLab(t, "--form", "decap", "--host", "host0")
	j := listen(t, l.a.host, l.b.host)
	every(t, "strongswan-nic", interop.PeerSeals, "ping, rekey, ping", func(t *testing.T, v version, suite string, byB bool) { l.rekeyed(t, j, v, suite, byB) })
	l.end(t)
}

func require(t *testing.T) {
	t.Helper()
	rig.Require(t)
	interop.Require(t, daemon, "swanctl", "unshare", "ip", "ss", "ping", "iperf3")
}

// rekeyed is the life of a child SA.
//
//  1. It comes up. Frames pass tapsec as they are until it has seen the key in the log.
//  2. It has; frames are opened.
//  3. One side rekeys, and the new SA goes the same way.
//  4. The record is checked, and the child goes.
func (l *lab) rekeyed(t *testing.T, j *journal, v version, suite string, byB bool) {
	l.a.ctl(t, "--initiate", "--ike", v.String(), "--child", suite)
	l.ping(t, v)
	l.followed(t, v)
	l.ping(t, v)
	wait := func() {}
	if bulk(suite) {
		wait = l.iperf(t, v, 0, "--bytes", "4M", "--bitrate", "40M")
	}
	l.rekey(t, v, suite, byB)
	both := l.b.inbound(t, v)
	both = both[len(both)-2:]
	program.Await(t, "a frame of the new SA", func() bool { l.ping(t, v); return j.saw(both[1].SPI) })
	l.followed(t, v)
	l.ping(t, v)
	if bulk(suite) {
		l.iperf(t, v, 1, "--udp", "--length", "1200", "--bytes", "300K", "--bitrate", "40M")()
	}
	wait()
	l.quiet(t)
	record := j.settle(t)
	for _, s := range both { // a child has but one proposal
		if want, _ := sa.ParseSuite(sa.ESP, suite); s.Suite != want {
			t.Errorf("charon and tapsec agree on %s, want %s", s.Suite.Name, suite)
		}
	}
	for spi, s := range check(t, record, both) {
		if bulk(suite) && s.full == 0 {
			t.Errorf("SPI %08x: no long packet was opened", spi)
		}
	}
	l.a.ctl(t, "--terminate", "--ike", v.String(), "--child", suite)
}

// end stops tapsec, whose own account must be without loss and failure: of each direction
// "frames in" equals "frames out", and what is below is 0.
func (l *lab) end(t *testing.T) {
	t.Helper()
	l.nic.Stop()
	counts := map[string][2]string{}
	for _, m := range regexp.MustCompile(`(?m)^(\S+(?: \S+)*) {2,}(\d+) +(\d+)$`).FindAllStringSubmatch(l.nic.Text(), -1) {
		counts[m[1]] = [2]string{m[2], m[3]}
	}
	none := [2]string{"0", "0"}
	in := counts["frames in"]
	lost := in[0] == "0" || in[0] == "" || in != counts["frames out"]
	for _, count := range []string{"kept", "host_down", "too_long", "refused", "oversize", "uncut"} {
		lost = lost || counts[count] != none
	}
	if lost {
		t.Errorf("frames were lost:\n%s", l.nic.Text())
	}
	if strings.Contains(l.nic.Text(), "AUTH_FAILED") {
		t.Errorf("frames failed:\n%s", l.nic.Text())
	}
}
