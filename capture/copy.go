package capture

import (
	"encoding/binary"
	"fmt"
	"io"
)

// Copy writes a capture as pcapng, with other bytes in its frames. All else stays: sections
// and their byte order, interfaces with names and clocks, comments, lengths on the wire, name
// resolution, secrets, statistics, and unknown blocks. Frames that the Reader skips are copied
// as they are.
//
// A Copy is not safe for concurrent use. It keeps its first error.
type Copy struct {
	out   io.Writer
	order binary.ByteOrder
	buf   []byte
	err   error

	begun   bool     // a section has begun
	secrets []Secret // to be written after its header
}

// CopyTo copies everything that is read from now on to out. It comes before the first Next.
// Frame writes each frame.
func (r *Reader) CopyTo(out io.Writer) *Copy {
	c := &Copy{out: out, order: binary.LittleEndian}
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
	c.block(info, frame, comment)
	return c.err
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
	c.buf = append(c.buf, body[16:]...)
	c.end()
	c.begun = true
	c.writeSecrets()
}

// describe writes an interface. Link types that are understood become Ethernet without a snap
// length.
func (c *Copy) describe(body []byte, link uint32) {
	c.begin(blockInterface)
	at := len(c.buf)
	c.buf = append(c.buf, body...)
	if understood(link) == nil {
		c.order.PutUint16(c.buf[at:], linkEthernet)
		c.order.PutUint32(c.buf[at+4:], 0)
	}
	c.end()
}

// block writes a frame.
func (c *Copy) block(info Info, frame []byte, comment string) {
	c.begin(blockEnhanced)
	for _, v := range []uint32{info.origin.id, uint32(info.origin.stamp >> 32), uint32(info.origin.stamp),
		uint32(len(frame)), uint32(len(frame) + info.Missing)} {
		c.u32(v)
	}
	c.buf = append(c.buf, frame...)
	c.pad()
	before := len(c.buf)
	c.options(info.origin.options)
	for ; comment != ""; comment = comment[min(len(comment), maxOption):] { // the format has 16 bits for its length
		c.option(optComment, comment[:min(len(comment), maxOption)])
	}
	if len(c.buf) > before {
		c.option(optEnd, "")
	}
	c.end()
}

const maxOption = 0xffff

// options copies a frame's options but the checksum, which is no longer right.
func (c *Copy) options(b []byte) {
	const checksum = 3 // epb_hash
	for len(b) >= 4 {
		code, n := c.order.Uint16(b), int(c.order.Uint16(b[2:]))
		whole := 4 + (n+3)&^3
		if code == optEnd || whole > len(b) {
			return
		}
		if code != checksum {
			c.buf = append(c.buf, b[:whole]...)
		}
		b = b[whole:]
	}
}

func (c *Copy) begin(kind uint32) {
	c.buf = c.buf[:0]
	c.u32(kind)
	c.u32(0)
}

func (c *Copy) end() {
	c.pad()
	length := uint32(len(c.buf)) + 4
	c.u32(length)
	c.order.PutUint32(c.buf[4:], length)
	c.write(c.buf)
}

func (c *Copy) u32(v uint32) {
	c.buf = append(c.buf, 0, 0, 0, 0)
	c.order.PutUint32(c.buf[len(c.buf)-4:], v)
}

func (c *Copy) option(code uint16, v string) {
	c.buf = append(c.buf, 0, 0, 0, 0)
	c.order.PutUint16(c.buf[len(c.buf)-4:], code)
	c.order.PutUint16(c.buf[len(c.buf)-2:], uint16(len(v)))
	c.buf = append(c.buf, v...)
	c.pad()
}

func (c *Copy) pad() {
	for len(c.buf)%4 != 0 {
		c.buf = append(c.buf, 0)
	}
}
