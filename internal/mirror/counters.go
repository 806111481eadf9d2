package mirror

import (
	"errors"
	"time"

	"tapsec/sa"
)

// Counters reads what the kernel has counted for its SAs.
type Counters struct {
	kernel  kernel
	request uint32
}

// OpenCounters opens the counters of the current namespace. It needs CAP_NET_ADMIN,
// and so does Read.
func OpenCounters() (*Counters, error) {
	s, err := open(0)
	if err != nil {
		return nil, err
	}
	return &Counters{kernel: s}, nil
}

// Read asks the kernel for the counters of all SAs that the NIC could hold.
func (c *Counters) Read() (map[sa.ID]Usage, error) {
	const patience = 10 * time.Second
	c.request++
	if err := c.kernel.ask(c.request); err != nil {
		return nil, err
	}
	all := map[sa.ID]Usage{}
	for {
		datagram, err := c.kernel.receive(patience)
		if errors.Is(err, errNone) {
			return nil, errors.New("the kernel does not say what it has counted")
		} else if err != nil {
			return nil, err
		}
		for _, one := range split(datagram) {
			switch {
			case one.port != c.kernel.port() || one.request != c.request:
			case one.kind == dumped:
				return all, nil
			case one.kind == refused:
				return nil, one.err
			case one.kind == isThere:
				if s, err := one.state.SA(); err == nil {
					all[s.ID()] = one.usage
				}
			}
		}
		clear(datagram)
	}
}

// Close closes the socket.
func (c *Counters) Close() error { return c.kernel.Close() }
