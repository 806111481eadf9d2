package tap

import "tapsec/internal/segment"

// cutting is what a ring's reader needs of merged frames. One stays in its slot until all of it is handed
// out, which may take several batches.
type cutting struct {
	cutter segment.Cutter
	slot   uint16 // of the frame that is being cut
	pieces []byte // of the batch that is handed out
}

// newCutting makes room for a batch of pieces as long as most wires take, and for any one piece.
func newCutting(d *Direction) *cutting {
	return &cutting{pieces: make([]byte, 0, max(Batch*near, d.slotSize()))}
}

// maxMerged is the length in bytes of the longest merged frame: its packet's, and those of an Ethernet
// header with tags.
const maxMerged = 65535 + 40 + 14 + 4*4

// setAside begins to cut the frame in a slot where it is merged. It reports false where the frame is to
// be handed out as it is, counted and with its checksum.
func (r *reader) setAside(slot uint16) bool {
	c, d, frame := r.cut, r.direction, r.frames[slot]
	h := segment.Parse(r.slots[slot][head-segment.HeaderLen:])
	switch {
	case h.Merged():
		c.slot = slot
		if !c.cutter.Begin(h, frame) {
			d.tally.Uncut++
			r.giveBack(slot)
		}
		return true
	case len(frame) > d.room:
		d.tally.Oversize++
		r.giveBack(slot)
		return true
	}
	h.Finish(frame)
	d.received(frame)
	return false
}

// takePieces puts into the batch what is left of a merged frame, as far as there is room.
func (r *reader) takePieces() {
	c, d := r.cut, r.direction
	if c.cutter.Len() == 0 {
		return
	}
	for length := c.cutter.Len(); length > 0; length = c.cutter.Len() {
		from, end := len(c.pieces), len(c.pieces)+length
		switch {
		case length > d.room:
			d.tally.Oversize++
			c.cutter.Skip()
			continue
		case len(r.batch) == Batch, end+d.tail > cap(c.pieces):
			return
		}
		c.cutter.Append(c.pieces)
		piece := c.pieces[from : end : end+d.tail]
		c.pieces = c.pieces[:end+d.tail]
		r.batch = append(r.batch, piece)
		d.received(piece)
	}
	r.giveBack(c.slot)
}
