package strongswan

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"tapsec/internal/lab/rig"
	"tapsec/test/interop"
	"tapsec/test/program"
)

// wholePolicy lets the daemons talk, and wants all else protected.
const wholePolicy = `
policy:
  - {match: {dst: 192.0.2.0/24}, action: bypass}
  - {match: {dst: "2001:db8::/64"}, action: bypass}
  - {match: {dst: "ff02::/16"}, action: bypass}
  - {match: {}, action: protect}
`

// TestWhole has tapsec be all of b's ESP, NIC, transport and outbound side, with
// the keys of both directions; b's daemon does IKE alone. What a sends and tapsec
// opens is in place there, the windows move, and a's libipsec opens what tapsec
// sealed.
func TestWhole(t *testing.T) {
	require(t)
	policy := filepath.Join(t.TempDir(), "policy.yaml")
	write(t, policy, wholePolicy)
	l := newLab(t, "-c", policy, "--transport", "host0")
	a, b := l.a.host, l.b.host
	b.steer(t, a)
	ends := overhear(t, a, b)
	unopened := 0
	every(t, "strongswan-host", interop.TapsecSeals, "ping, rekey, ping", func(t *testing.T, v version, suite string, byB bool) {
		unopened += l.carried(t, ends, v, suite, byB)
	})
	l.nic.Stop()
	dropped := regexp.MustCompile(`(?m)^drop +(\d+)$`).FindStringSubmatch(l.nic.Text())
	if dropped == nil || dropped[1] != strconv.Itoa(unopened) || strings.Contains(l.nic.Text(), "AUTH_FAILED") {
		t.Errorf("of a's packets %d have not come; tapsec says\n%s", unopened, l.nic.Text())
	}
}

// steer leads what is for the peer's inner addresses to the link, in front of
// charon's own routes to ipsec0.
func (h *host) steer(t *testing.T, peer *host) {
	t.Helper()
	mac := peer.mac(t)
	if err := h.ns.Do(func() error {
		return errors.Join(rig.Neighbour(h.link, peer.outer(4), mac), rig.Neighbour(h.link, peer.outer(6), mac))
	}); err != nil {
		t.Fatal(err)
	}
	for i, family := range versions {
		ip := func(args ...string) { h.run(t, "ip", append([]string{fmt.Sprintf("-%d", family)}, args...)...) }
		ip("rule", "add", "pref", "100", "lookup", "main")
		for _, v := range versions {
			ip("route", "add", peer.inner(v)[i].String(), "via", peer.outer(family).String(), "dev", h.link, "src", h.inner(v)[i].String())
		}
	}
}

// carried is the life of a child SA whose b side is tapsec. It returns how many
// packets tapsec did not open, having no key for them yet.
func (l *lab) carried(t *testing.T, ends *ends, v version, suite string, byB bool) int {
	l.a.ctl(t, "--initiate", "--ike", v.String(), "--child", suite)
	l.reload(t)
	l.taken(t)
	l.ping(t, v)
	wait := func() {}
	if bulk(suite) {
		wait = l.iperf(t, v, 0, "--bytes", "1M", "--bitrate", "40M", "--reverse")
	}
	l.rekey(t, v, suite, byB)
	l.reload(t)
	l.taken(t)
	l.ping(t, v)
	if bulk(suite) {
		l.iperf(t, v, 1, "--bytes", "1M", "--bitrate", "40M")()
	}
	wait()
	l.quiet(t)
	l.ping(t, v) // once these are answered nothing from before is still on its way
	unopened, unheard := ends.settle(t)
	if unheard > 0 && !bulk(suite) { // what is sealed for an SA that the daemons have just replaced may be
		t.Errorf("%d of b's packets have not come", unheard)
	}
	if text := l.a.grep(t, "[ESP]"); text != "" {
		t.Errorf("a's daemon says\n%s", text)
	}
	l.a.ctl(t, "--terminate", "--ike", v.String(), "--child", suite)
	return unopened
}

// ends is what is heard of inner packets at the two ends.
type ends struct {
	mu       sync.Mutex
	up, down way
}

// way is one direction: what one end has sent, and what came to the other.
type way struct{ sent, came [][]byte }

func overhear(t *testing.T, a, b *host) *ends {
	t.Helper()
	e := &ends{}
	sort := func(packet []byte, fromA, fromB *[][]byte) {
		switch from := source(packet); {
		case a.owns(from):
			*fromA = append(*fromA, packet)
		case b.owns(from):
			*fromB = append(*fromB, packet)
		}
	}
	ear(t, &e.mu, a, "ipsec0", func(packet []byte) { sort(packet, &e.up.sent, &e.down.came) })
	ear(t, &e.mu, b, b.link, func(frame []byte) { sort(frame[14:], &e.up.came, &e.down.sent) })
	return e
}

// settle waits until the last packet of either end has come to the other, and
// gives the numbers of a's and of b's that have not come. Each packet that came is
// one that was sent, byte for byte; the kernels may have moved it among the others,
// and it may be heard where it came before it is where it was sent.
func (e *ends) settle(t *testing.T) (ofA, ofB int) {
	t.Helper()
	var odd string
	defer func() {
		if odd != "" {
			t.Logf("was not sent so, or came twice:\n%x", odd)
		}
	}()
	program.Await(t, "the last packets", func() bool {
		e.mu.Lock()
		defer e.mu.Unlock()
		if !e.up.settled() || !e.down.settled() {
			return false
		}
		odd = cmp.Or(e.up.unsent(), e.down.unsent())
		return odd == ""
	})
	e.mu.Lock()
	defer e.mu.Unlock()
	ofA, ofB = e.up.lost(), e.down.lost()
	e.up, e.down = way{}, way{}
	return ofA, ofB
}

func (w *way) settled() bool {
	return len(w.sent) > 0 && slices.ContainsFunc(w.came, func(p []byte) bool { return bytes.Equal(p, w.sent[len(w.sent)-1]) })
}

// unsent is a packet that came and was not sent so, or came twice.
func (w *way) unsent() string {
	sent := map[string]int{}
	for _, packet := range w.sent {
		sent[string(packet)]++
	}
	for _, packet := range w.came {
		if sent[string(packet)]--; sent[string(packet)] < 0 {
			return string(packet)
		}
	}
	return ""
}

// lost counts what has been sent and has not come.
func (w *way) lost() int { return len(w.sent) - len(w.came) }

// grep gives the lines of the log that hold some text.
func (c *charon) grep(t *testing.T, text string) string {
	t.Helper()
	var found []string
	for line := range strings.Lines(c.read(t)) {
		if strings.Contains(line, text) {
			found = append(found, line)
		}
	}
	return strings.Join(found, "")
}
