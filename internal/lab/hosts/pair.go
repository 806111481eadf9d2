package hosts

import "tapsec/tap"

// Pair is the two hosts in this process, inside a rig, for whoever measures them.
type Pair struct{ system *system }

// There is the address of b's stack, to which a's packets go sealed.
const There = "10.77.0.2"

// NewPair puts up the hosts a and b. Unmerged is what does not pass merged between a transport and
// its stack, and on the wire. Their tunnels may be in UDP.
func NewPair(unmerged tap.Merging, udp bool) (*Pair, error) {
	s, err := newSystem(unmerged, udp)
	if err != nil {
		return nil, err
	}
	return &Pair{s}, nil
}

// Do calls f in a host's namespace. What it starts stays there.
func (p *Pair) Do(host string, f func() error) error { return p.system.ns[host].Do(f) }

// Close takes the hosts down.
func (p *Pair) Close() error { return p.system.close() }
