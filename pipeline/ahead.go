package pipeline

import "tapsec/sa"

// Assumed is what a frame that was processed ahead took for granted, and has proven: numbers
// that ESN marks gave, and those to which they are to rise. Of all that a verdict depends
// on, marks are what frames change for those behind them. One without ESN assumes nothing.
type Assumed []assumption

type assumption struct {
	mark   *sa.Mark
	number uint64
	proven bool // the mark rises to the number; else it gave it
}

// Ahead is Process for a frame whose turn has not come: others in front of it may not be
// processed yet. Marks stay as they are until Confirm, to which a is given in the frame's
// turn.
func (p *Pipeline) Ahead(frame []byte, a *Assumed) []byte {
	*a = (*a)[:0]
	p.assumed = a
	frame = p.Process(frame)
	p.assumed = nil
	return frame
}

// Confirm reports whether the marks, which the frames in front have raised meanwhile, still
// give each number that was assumed, and raises them. Where it returns false the frame is to be
// processed again, now. Marks that were raised before the difference was found do no harm:
// the frame raises them to the same numbers once more.
func (a Assumed) Confirm() bool {
	for _, one := range a {
		switch {
		case one.proven:
			one.mark.Authenticated(one.number)
		case one.mark.Number(uint32(one.number)) != one.number:
			return false
		}
	}
	return true
}

// number completes the number of a header.
func (p *Pipeline) number(m *sa.Mark, low uint32) uint64 {
	n := m.Number(low)
	if p.assumed != nil && m.ESN() {
		*p.assumed = append(*p.assumed, assumption{m, n, false})
	}
	return n
}

// authenticated raises a mark to a number that an ICV has proven.
func (p *Pipeline) authenticated(m *sa.Mark, n uint64) {
	switch {
	case p.assumed == nil:
		m.Authenticated(n)
	case m.ESN():
		*p.assumed = append(*p.assumed, assumption{m, n, true})
	}
}
