package appliance

import (
	"bytes"
	"errors"
	"log/slog"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"

	"tapsec/configs"
	"tapsec/internal/audit"
	"tapsec/internal/nic"
	"tapsec/tap"
)

// The first frame lost of each kind and way has a line that names the interface and
// what to do there; no later one has (contract, What is logged).
func TestLosses(t *testing.T) {
	for name, c := range map[string]struct {
		moved nic.Summary
		drops []KernelDrops
		lines int
		says  []string
		xdp   bool
	}{
		"oversize from the wire": {moved: nic.Summary{ToHost: tap.Tally{Oversize: 3}}, drops: nil, lines: 1, says: []string{"more than", "interface=w frames=3"}},
		"oversize from the host": {moved: nic.Summary{ToWire: tap.Tally{Oversize: 1}}, drops: nil, lines: 1, says: []string{"interface=h frames=1"}},
		"uncut":                  {moved: nic.Summary{ToHost: tap.Tally{Uncut: 2}}, drops: nil, lines: 1, says: []string{"interface=w frames=2", "ethtool -K w lro off"}},
		"too long":               {moved: nic.Summary{ToHost: tap.Tally{TooLong: 1}}, drops: nil, lines: 1, says: []string{"interface=h frames=1", "ip link set h mtu"}},
		"refused":                {moved: nic.Summary{ToWire: tap.Tally{Refused: 1}}, drops: nil, lines: 1, says: []string{"interface=w frames=1", "nft list ruleset", "dev w"}},
		"queue full":             {moved: nic.Summary{}, drops: []KernelDrops{{"w", tap.Drops{Rx: 7}, nil}, {"h", tap.Drops{Tx: 5}, nil}}, lines: 1, says: []string{"interface=h frames=5", "faster than they were taken", "--queues"}},
		"ring broken":            {moved: nic.Summary{ToHost: tap.Tally{Uncut: 2}}, drops: []KernelDrops{{"w", tap.Drops{Tx: 5}, nil}}, lines: 2, says: []string{"interface=w frames=2", "interface=w frames=5", "other frames"}},
		"drops unknown":          {moved: nic.Summary{}, drops: []KernelDrops{{"w", tap.Drops{}, errors.New("gone")}}, lines: 0, says: nil},
		"nothing lost":           {moved: nic.Summary{ToHost: tap.Tally{In: 9, Out: 9, HostDown: 1, Retries: 5, Kept: 2}}, drops: nil, lines: 0, says: nil},
		"oversize by AF_XDP":     {moved: nic.Summary{ToHost: tap.Tally{Oversize: 3}}, lines: 1, says: []string{"interface=w frames=3", "ethtool -K w gro off", "--engine ring"}, xdp: true},
	} {
		var out bytes.Buffer
		l := losses{log: slog.New(slog.NewTextHandler(&out, nil)), wire: "w", host: "h", xdp: c.xdp}
		for range 3 {
			l.watch(c.moved, c.drops)
		}
		if lines := strings.Count(out.String(), "\n"); lines != c.lines {
			t.Errorf("%s: %d lines, want %d", name, lines, c.lines)
		}
		for _, part := range c.says {
			if !strings.Contains(out.String(), part) {
				t.Errorf("%s: no %q in %s", name, part, out.String())
			}
		}
	}
}

// A wire whose MTU changes all the time fills no log, and the last line has the MTU that it came to.
func TestMTUChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		h := &host{log: slog.New(slog.NewTextHandler(&out, nil))}
		h.resizes.Report = h.sealsFor
		for i := range 100 {
			h.mtu = leastMTU - 50 + i
			h.resizes.Changed(h.mtu)
		}
		h.resizes.Settle()
		said := out.String()
		if lines := strings.Count(said, "the wire's MTU\""); lines != audit.PerSA+1 || !strings.HasSuffix(said, "is=625 suppressed=94\n") {
			t.Errorf("%d lines:\n%s", lines, said)
		}
	})
}

// A line of the log has some of a thousand addresses, and how many there are.
func TestManyAddresses(t *testing.T) {
	var out bytes.Buffer
	h := &host{log: slog.New(slog.NewTextHandler(&out, nil))}
	h.movesTo(&configs.Config{})(make([]netip.Addr, 1000), 0)
	if said := out.String(); strings.Count(said, netip.Addr{}.String()) != mostSaid || !strings.Contains(said, "more=980") {
		t.Error(said)
	}
}
