package capture

import "encoding/binary"

// builder appends blocks in a section's byte order.
type builder struct {
	order binary.ByteOrder
	buf   []byte
	start int // of the block in buf
}

// frame appends a frame's block.
func (b *builder) frame(info Info, frame []byte, comment string) {
	b.begin(blockEnhanced)
	for _, v := range [...]uint32{info.origin.id, uint32(info.origin.stamp >> 32), uint32(info.origin.stamp),
		uint32(len(frame)), uint32(len(frame) + info.Missing)} {
		b.u32(v)
	}
	b.buf = append(b.buf, frame...)
	b.pad()
	before := len(b.buf)
	b.options(info.origin.options, optHash)
	for ; comment != ""; comment = comment[min(len(comment), maxOption):] { // the format has 16 bits for its length
		b.option(optComment, comment[:min(len(comment), maxOption)])
	}
	if len(b.buf) > before {
		b.option(optEnd, "")
	}
	b.end()
}

const maxOption = 0xffff

// options copies a block's options but one, and those that whoever made them up wants left out
// of changed files.
func (b *builder) options(from []byte, but uint16) {
	for len(from) >= 4 {
		code, n := b.order.Uint16(from), int(b.order.Uint16(from[2:]))
		whole := 4 + (n+3)&^3
		if code == optEnd || whole > len(from) {
			return
		}
		if code != but && code != optOwnText && code != optOwnBytes {
			b.buf = append(b.buf, from[:whole]...)
		}
		from = from[whole:]
	}
}

func (b *builder) begin(kind uint32) {
	b.start = len(b.buf)
	b.u32(kind)
	b.u32(0)
}

func (b *builder) end() {
	b.pad()
	length := uint32(len(b.buf)-b.start) + 4
	b.u32(length)
	b.order.PutUint32(b.buf[b.start+4:], length)
}

func (b *builder) u32(v uint32) {
	b.buf = append(b.buf, 0, 0, 0, 0)
	b.order.PutUint32(b.buf[len(b.buf)-4:], v)
}

func (b *builder) option(code uint16, v string) {
	b.buf = append(b.buf, 0, 0, 0, 0)
	b.order.PutUint16(b.buf[len(b.buf)-4:], code)
	b.order.PutUint16(b.buf[len(b.buf)-2:], uint16(len(v)))
	b.buf = append(b.buf, v...)
	b.pad()
}

func (b *builder) pad() {
	for (len(b.buf)-b.start)%4 != 0 {
		b.buf = append(b.buf, 0)
	}
}
