package tap

import "tapsec/internal/segment"

// cutting is what a ring's reader needs for merged frames. A merged frame stays in its slot until all its
// pieces have been handed out, which may take several batches.
type cutting struct {
	cutter segment.Cutter
	slot   uint16 // of the frame being cut
	pieces []byte // of the batch handed out
}

// newCutting makes room for a batch of pieces of the usual length, and for one piece of any length.
func newCutting(d *Direction) *cutting {
	return &cutting{cutter: d.cutter(), pieces: make([]byte, 0, max(Batch*near, d.slotSize()))}
}

// cutter makes what cuts the direction's merged frames.
func (d *Direction) cutter() segment.Cutter { return segment.Cutter{Sealed: d.from.merging&Wire != 0} }

// maxMerged is the length in bytes of the longest merged frame: that of its packet, plus an Ethernet
// header with tags.
const maxMerged = 65535 + 40 + 14 + 4*4

// setAside begins to cut the frame in a slot if it is merged. It reports false if the frame, by then
// counted and with its checksum, is to be handed out as it is.
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

// takePieces moves what is left of a merged frame into the batch, as far as there is room.
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
