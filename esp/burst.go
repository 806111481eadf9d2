package esp

// Gains reports whether the SA's packets are opened faster together than one by one.
func (in *Inbound) Gains() bool {
	c, ok := in.aead(0).(*composite)
	return ok && c.lane != nil
}

// Enter puts a packet among those that Together opens. The arguments are those of Open,
// which is to be called for each packet entered, in the same order, before it changes.
// Not each packet can be opened so; the others wait for Open.
func (in *Inbound) Enter(worker int, packet []byte, number uint64, s *Scratch) {
	s.burst.enter(in, worker, packet, number)
}

// Together opens the packets entered, up to Burst of them, as far as that is faster than
// Open would be. What it finds is what Open returns.
func (s *Scratch) Together() { s.burst.run() }

// Apart forgets what was entered.
func (s *Scratch) Apart() { s.burst.forget() }
