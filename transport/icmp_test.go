package transport_test

import (
	"bytes"
	"testing"

	"tapsec/internal/lab/forge"
	"tapsec/sa"
)

// Contract, The sending side, step 3: a frame with ICMP is read once, without an SA
// whatever the policy says of it, else if it is delivered.
func TestICMPIsReadOnce(t *testing.T) {
	tun := espSA(sa.Tunnel)
	narrow := espSA(sa.Tunnel, spi(0x2005), selecting(sa.Selector{Protocol: 17}))
	echo, echo6 := forge.Echo(nil, host4a, host4b, 1, 1, message), forge.Echo(nil, host6a, host6b, 1, 1, message)
	damaged := bytes.Clone(echo)
	damaged[8] ^= 1 // under the header's checksum
	all := func(action sa.Action) []sa.Policy { return []sa.Policy{{Action: action}} }
	first, later := fragments(echo, 0)
	for name, c := range map[string]struct {
		policy []sa.Policy
		frames [][]byte
		want   []byte
	}{
		"clear":                     {nil, [][]byte{framed(echo)}, echo},
		"clear, IPv6":               {nil, [][]byte{framed(echo6)}, echo6},
		"clear, discarded":          {all(sa.Discard), [][]byte{framed(echo)}, echo},
		"clear, to be protected":    {all(sa.Protect), [][]byte{framed(echo6)}, echo6},
		"in fragments":              {all(sa.Discard), [][]byte{framed(first), framed(later)}, echo},
		"out of a tunnel":           {nil, [][]byte{framed(once(t, 1, echo, tun))}, echo},
		"out of one, discarded":     {all(sa.Discard), [][]byte{framed(once(t, 1, echo, tun))}, nil},
		"out of one for other data": {nil, [][]byte{framed(once(t, 1, echo, narrow))}, nil},
		"damaged":                   {nil, [][]byte{framed(damaged)}, nil},
		"UDP":                       {nil, [][]byte{framed(plain4())}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			both(t, setup{sas: []*sa.SA{tun, narrow}, policy: c.policy}, func(t *testing.T, h *host) {
				for _, frame := range c.frames {
					h.receive(frame)
				}
				var want [][]byte
				if c.want != nil {
					want = [][]byte{framed(c.want)}
				}
				if len(h.icmp) != len(want) || len(want) > 0 && !bytes.Equal(h.icmp[0], want[0]) {
					t.Errorf("read\n% x, want\n% x", h.icmp, want)
				}
			})
		})
	}
}
