package capture

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
)

// maxBlock bounds in bytes what is read of one block: a frame of the longest kind, and options.
const maxBlock = 1 << 20

// Blocks reads what a Writer writes, block by block, for who hands it on.
type Blocks struct {
	in  *bufio.Reader
	buf []byte
}

// NewBlocks reads from in.
func NewBlocks(in io.Reader) *Blocks { return &Blocks{in: bufio.NewReaderSize(in, 1<<16)} }

// Block is one whole block as it stands there, valid until the next one is read.
type Block []byte

// Next reads a block. The error is io.EOF behind the last one, and io.ErrUnexpectedEOF inside one.
func (b *Blocks) Next() (Block, error) {
	head, err := b.in.Peek(8)
	if err != nil {
		if err == io.EOF && len(head) > 0 {
			err = io.ErrUnexpectedEOF
		}
		return nil, err
	}
	length := binary.LittleEndian.Uint32(head[4:])
	if length < 12 || length%4 != 0 || length > maxBlock {
		return nil, fmt.Errorf("capture: expected a pcapng block of 12 to %d bytes, found one of %d", maxBlock, length)
	}
	if cap(b.buf) < int(length) {
		b.buf = make([]byte, 2*length)
	}
	b.buf = b.buf[:length]
	if _, err := io.ReadFull(b.in, b.buf); err != nil {
		return nil, unexpected(err)
	}
	return b.buf, nil
}

// Waiting reports whether more can be read without waiting.
func (b *Blocks) Waiting() bool { return b.in.Buffered() > 0 }

func (b Block) kind() uint32 { return binary.LittleEndian.Uint32(b) }

// Heads reports whether the block begins a file: its section or an interface.
func (b Block) Heads() bool { return b.kind() == blockSection || b.kind() == blockInterface }

// Frame returns the interface of a block that holds a frame.
func (b Block) Frame() (iface int, ok bool) {
	if b.kind() != blockEnhanced || len(b) < 32 {
		return 0, false
	}
	return int(binary.LittleEndian.Uint32(b[8:])), true
}

// Counts returns the counts of a block that holds those of an interface.
func (b Block) Counts() (iface int, c Counts, ok bool) {
	if b.kind() != blockCounts || len(b) < 24 {
		return 0, c, false
	}
	le := binary.LittleEndian
	for o := b[20 : len(b)-4]; len(o) >= 12 && le.Uint16(o) != optEnd; {
		switch n := le.Uint16(o[2:]); {
		case n != 8:
			return 0, c, false
		case le.Uint16(o) == optReceived:
			c.Received = le.Uint64(o[4:])
		case le.Uint16(o) == optDropped:
			c.Lost = le.Uint64(o[4:])
		case le.Uint16(o) == optAccepted:
			c.Accepted = le.Uint64(o[4:])
		}
		o = o[12:]
	}
	return int(le.Uint32(b[8:])), c, true
}
