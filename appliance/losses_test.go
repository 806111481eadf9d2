package appliance

import (
	"bytes"
	"errors"
	"log/slog"
	"strings"
	"testing"

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
	}{
		"oversize from the wire": {nic.Summary{ToHost: tap.Tally{Oversize: 3}}, nil, 1, []string{"more than", "interface=w frames=3"}},
		"oversize from the host": {nic.Summary{ToWire: tap.Tally{Oversize: 1}}, nil, 1, []string{"interface=h frames=1"}},
		"uncut":                  {nic.Summary{ToHost: tap.Tally{Uncut: 2}}, nil, 1, []string{"interface=w frames=2", "ethtool -K w lro off"}},
		"too long":               {nic.Summary{ToHost: tap.Tally{TooLong: 1}}, nil, 1, []string{"interface=h frames=1", "ip link set h mtu"}},
		"refused":                {nic.Summary{ToWire: tap.Tally{Refused: 1}}, nil, 1, []string{"interface=w frames=1", "nft list ruleset", "dev w"}},
		"queue full":             {nic.Summary{}, []KernelDrops{{"w", tap.Drops{Rx: 7}, nil}, {"h", tap.Drops{Tx: 5}, nil}}, 1, []string{"interface=h frames=5", "faster than they were taken", "--queues"}},
		"ring broken":            {nic.Summary{ToHost: tap.Tally{Uncut: 2}}, []KernelDrops{{"w", tap.Drops{Tx: 5}, nil}}, 2, []string{"interface=w frames=2", "interface=w frames=5", "other frames"}},
		"drops unknown":          {nic.Summary{}, []KernelDrops{{"w", tap.Drops{}, errors.New("gone")}}, 0, nil},
		"nothing lost":           {nic.Summary{ToHost: tap.Tally{In: 9, Out: 9, HostDown: 1, Retries: 5, Kept: 2}}, nil, 0, nil},
	} {
		var out bytes.Buffer
		l := losses{log: slog.New(slog.NewTextHandler(&out, nil)), wire: "w", host: "h"}
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
