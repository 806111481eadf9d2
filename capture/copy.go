package capture

import (
	"encoding/binary"
	"fmt"
	"io"
)

// Copy writes a capture as pcapng, with other bytes in its frames. All else stays: sections
// and their byte order, interfaces with names and clocks, comments, lengths on the wire, name
// resolution, secrets, statistics, and unknown blocks, except what says that it is not to be
// copied. Frames that the Reader skips are copied as they are.
//
// A Copy is not safe for concurrent use. It keeps its first error.
type Copy struct {
	out io.Writer
	builder
	err error

	begun   bool     // a section has begun
	secrets []Secret // to be written after its header
}

// CopyTo copies everything that is read from now on to out. It comes before the first Next.
// Frame writes each frame.
func (r *Reader) CopyTo(out io.Writer) *Copy {
	c := &Copy{out: out, builder: builder{order: binary.LittleEndian}}
	r.copy = c
	if p, ok := r.format.(*pcap); ok { // it has no blocks: one section, one interface
		version := binary.LittleEndian.AppendUint32(binary.LittleEndian.AppendUint32(nil, byteOrderMagic), 1)
		c.section(c.order, append(version, make([]byte, 8)...))
		unit := byte(6)
		if p.unit == 1 {
			unit = 9
		}
		c.describe([]byte{linkEthernet, 0, 0, 0, 0, 0, 0, 0, optTimeUnit, 0, 1, 0, unit, 0, 0, 0, optEnd, 0, 0, 0}, p.link)
	}
	return c
}

// Frame writes a frame in place of the one that the Reader gave with info. Bytes that were
// missing still count as missing. The comment follows those that the frame had.
func (c *Copy) Frame(frame []byte, info Info, comment string) error {
	c.write(AppendFrame(c.buf[:0], frame, info, comment))
	return c.err
}

// AppendFrame appends what Frame writes, for those who put frames and what the Copy writes
// between them into order themselves.
func AppendFrame(to, frame []byte, info Info, comment string) []byte {
	b := builder{order: info.origin.order, buf: to}
	b.frame(info, frame, comment)
	return b.buf
}

// Close returns the first error. It does not close what is written to.
func (c *Copy) Close() error { return c.err }

// Write takes over bytes as they are.
func (c *Copy) Write(b []byte) (int, error) {
	c.write(b)
	return len(b), nil // a failure is told by the next Frame, and the capture is read on
}

func (c *Copy) write(b []byte) {
	if c.err != nil {
		return
	}
	if _, err := c.out.Write(b); err != nil {
		c.err = fmt.Errorf("capture: writing pcapng: %w", err)
	}
}

// section begins a section of unknown length. The body's options stay.
func (c *Copy) section(order binary.ByteOrder, body []byte) {
	c.order = order
	c.begin(blockSection)
	c.buf = append(c.buf, body[:8]...)
	c.u32(0xffffffff)
	c.u32(0xffffffff)
	c.options(body[16:])
	c.put()
	c.begun = true
	c.writeSecrets()
}

// describe writes an interface. Link types that are understood become Ethernet without a snap
// length.
func (c *Copy) describe(body []byte, link uint32) {
	c.begin(blockInterface)
	at := len(c.buf)
	c.buf = append(c.buf, body[:8]...)
	c.options(body[8:])
	if understood(link) == nil {
		c.order.PutUint16(c.buf[at:], linkEthernet)
		c.order.PutUint32(c.buf[at+4:], 0)
	}
	c.put()
}

// options copies those of a section or an interface.
func (c *Copy) options(from []byte) {
	before := len(c.buf)
	if c.builder.options(from, optEnd); len(c.buf) > before {
		c.option(optEnd, "")
	}
}

// begin begins a block.
func (c *Copy) begin(kind uint32) {
	c.buf = c.buf[:0]
	c.builder.begin(kind)
}

// put ends the block and writes it.
func (c *Copy) put() {
	c.end()
	c.write(c.buf)
}
