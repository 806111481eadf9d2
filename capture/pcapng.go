package capture

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"math/bits"
	"time"

	"tapsec/internal/wrap"
)

// Block types (draft-ietf-opsawg-pcapng, section 11.1).
const (
	blockSection   = 0x0a0d0d0a // the same in both byte orders
	blockInterface = 1
	blockPacket    = 2 // obsolete
	blockSimple    = 3
	blockCounts    = 5 // Interface Statistics Block
	blockEnhanced  = 6
	blockOwn       = 0x40000bad // a Custom Block that is not to be copied into a changed file
)

// Options.
const (
	optEnd       = 0
	optComment   = 1
	optUserAppl  = 4  // of a section: the program that wrote it
	optName      = 2  // of an interface, as the ones below
	optDescribed = 3  //
	optTimeUnit  = 9  // if_tsresol
	optTimeShift = 14 // if_tsoffset, in seconds

	optHash     = 3 // epb_hash, of a frame, which a changed one no longer has
	optLost     = 4 // epb_dropcount, of a frame as the ones below
	optPacketID = 5 // epb_packetid
	optQueue    = 6 // epb_queue
	optVerdict  = 7 // epb_verdict, whose first byte says whose it is

	optReceived = 4 // isb_ifrecv, of statistics as the ones below
	optDropped  = 5 // isb_ifdrop
	optAccepted = 6 // isb_filteraccept

	optOwnText, optOwnBytes = 19372, 19373 // of any block; custom, and not to be copied either
)

const (
	byteOrderMagic = 0x1a2b3c4d
	maxMetadata    = 1 << 20 // bytes of a section header or interface description
	maxInterfaces  = 1 << 16 // in one section
	maxName        = 255     // bytes of an interface's name
)

// pcapng is the newer format: blocks in sections, each with its own byte order and interfaces.
type pcapng struct {
	reader     *Reader
	order      binary.ByteOrder
	interfaces []ngInterface
	head       [20]byte // scratch: of a block
}

type ngInterface struct {
	name      string
	link      uint32
	host      bool   // of frames that a NIC of tapsec delivered
	snap      uint32 // 0: no limit
	perSecond uint64 // timestamp units in a second
	shift     int64  // seconds
}

// header reads up to the next block that holds a frame, and remembers sections and interfaces
// on the way.
func (p *pcapng) header(in *bufio.Reader) (record, error) {
	for {
		kind, body, err := p.block(in)
		if err != nil {
			return record{}, err
		}
		switch kind {
		case blockEnhanced, blockPacket, blockSimple:
			return p.packet(in, kind, body)
		case blockSection:
			err = p.section(in, body)
		case blockInterface:
			err = p.describe(in, body)
		default:
			err = p.other(in, kind, body)
		}
		if err != nil {
			return record{}, err
		}
	}
}

// other skips a block that holds no frame: names, secrets, statistics, and whatever a program
// has made up. A Copy keeps it.
func (p *pcapng) other(in *bufio.Reader, kind uint32, body int64) error {
	if c := p.reader.copy; c == nil || c.drops(in, kind, p.order) {
		return skip(in, body+4)
	}
	var h [8]byte
	p.order.PutUint32(h[:], kind)
	p.order.PutUint32(h[4:], uint32(body+12))
	p.reader.copy.write(h[:])
	if _, err := io.CopyN(p.reader.copy, in, body+4); err != nil {
		return unexpected(err)
	}
	return nil
}

// block reads the head of a block. body is the number of bytes that follow, without the length
// at the end. A section header's byte order comes from the magic that follows.
func (p *pcapng) block(in *bufio.Reader) (kind uint32, body int64, err error) {
	h := p.head[:8]
	if err := begin(in, h); err != nil {
		return 0, 0, err
	}
	if binary.LittleEndian.Uint32(h) == blockSection {
		magic, err := in.Peek(4)
		if err != nil {
			return 0, 0, unexpected(err)
		}
		switch uint32(byteOrderMagic) {
		case binary.LittleEndian.Uint32(magic):
			p.order = binary.LittleEndian
		case binary.BigEndian.Uint32(magic):
			p.order = binary.BigEndian
		default:
			return 0, 0, fmt.Errorf("expected a section's byte-order magic, found % x", magic)
		}
	}
	length := p.order.Uint32(h[4:])
	if length < 12 || length%4 != 0 {
		return 0, 0, fmt.Errorf("expected a block length that is a multiple of 4 and at least 12, found %d%s", length, damaged)
	}
	return p.order.Uint32(h), int64(length) - 12, nil
}

// metadata reads the body of a block without a packet, at least min bytes, and the length
// after it.
func metadata(in *bufio.Reader, body, min int64) ([]byte, error) {
	if body < min || body > maxMetadata {
		return nil, fmt.Errorf("expected a block body of %d to %d bytes, found %d", min, maxMetadata, body)
	}
	b := make([]byte, body+4)
	if _, err := io.ReadFull(in, b); err != nil {
		return nil, unexpected(err)
	}
	return b[:body], nil
}

func (p *pcapng) section(in *bufio.Reader, body int64) error {
	b, err := metadata(in, body, 16)
	if err != nil {
		return err
	}
	if major := p.order.Uint16(b[4:]); major != 1 {
		return fmt.Errorf("expected pcapng version 1, found %d", major)
	}
	p.interfaces = nil
	if c := p.reader.copy; c != nil {
		c.section(p.order, b)
	}
	return nil
}

func (p *pcapng) describe(in *bufio.Reader, body int64) error {
	b, err := metadata(in, body, 8)
	if err != nil {
		return err
	}
	if len(p.interfaces) == maxInterfaces {
		return fmt.Errorf("expected at most %d interfaces in a section", maxInterfaces)
	}
	i := ngInterface{link: uint32(p.order.Uint16(b)), snap: p.order.Uint32(b[4:]), perSecond: 1e6}
	if c := p.reader.copy; c != nil {
		c.describe(b, i.link)
	}
	for b = b[8:]; len(b) >= 4; {
		code, n := p.order.Uint16(b), int(p.order.Uint16(b[2:]))
		if code == optEnd {
			break
		}
		if n > len(b)-4 {
			return fmt.Errorf("an option of %d bytes reaches beyond its block", n)
		}
		if err := i.option(code, b[4:4+n], p.order); err != nil {
			return err
		}
		b = b[min(4+(n+3)&^3, len(b)):]
	}
	p.interfaces = append(p.interfaces, i)
	return nil
}

func (i *ngInterface) option(code uint16, v []byte, order binary.ByteOrder) error {
	switch {
	case code == optName:
		i.name = wrap.Printable(string(bytes.TrimRight(v[:min(len(v), maxName)], "\x00")))
	case code == optDescribed:
		i.host = string(bytes.TrimRight(v, "\x00")) == Delivered
	case code == optTimeShift && len(v) == 8:
		i.shift = int64(order.Uint64(v))
	case code == optTimeUnit && len(v) == 1:
		i.perSecond = 1
		base, exponent := uint64(10), v[0]
		if exponent&0x80 != 0 {
			base, exponent = 2, exponent&0x7f
		}
		for range exponent {
			high, low := bits.Mul64(i.perSecond, base)
			if high != 0 {
				return fmt.Errorf("a timestamp unit of %d^-%d seconds is too small", base, exponent)
			}
			i.perSecond = low
		}
	}
	return nil
}

// time converts a timestamp of the interface. One outside of the years 1 to 9999 is none.
func (i *ngInterface) time(stamp uint64) time.Time {
	const first, last = -62135596800, 253402300799 // seconds from 1970
	seconds := stamp / i.perSecond
	if seconds > last-first || i.shift < first-last || i.shift > last || int64(seconds)+i.shift < first || int64(seconds)+i.shift > last {
		return time.Time{}
	}
	high, low := bits.Mul64(stamp%i.perSecond, 1e9)
	nanos, _ := bits.Div64(high, low, i.perSecond)
	return time.Unix(int64(seconds)+i.shift, int64(nanos)).UTC()
}

// packet reads the fixed part of a block that holds a frame. A Simple Packet Block has only the
// frame's length: interface 0, no time.
func (p *pcapng) packet(in *bufio.Reader, kind uint32, body int64) (record, error) {
	h := p.head[:]
	if kind == blockSimple {
		h = h[:4]
	}
	body -= int64(len(h))
	if body < 0 {
		return record{}, fmt.Errorf("block type %d ends inside its header", kind)
	}
	if _, err := io.ReadFull(in, h); err != nil {
		return record{}, unexpected(err)
	}
	id := uint32(0)
	switch kind {
	case blockEnhanced:
		id = p.order.Uint32(h)
	case blockPacket:
		id = uint32(p.order.Uint16(h))
	}
	if int64(id) >= int64(len(p.interfaces)) {
		return record{}, fmt.Errorf("interface %d is not among the %d described", id, len(p.interfaces))
	}
	i := &p.interfaces[id]
	rec := record{Info: Info{Interface: i.name, origin: origin{id: id}}, link: i.link, host: i.host, options: kind != blockSimple}
	var length uint32
	if kind == blockSimple {
		length = p.order.Uint32(h)
		rec.captured = length
		if i.snap != 0 {
			rec.captured = min(length, i.snap)
		}
	} else {
		rec.origin.stamp = uint64(p.order.Uint32(h[4:]))<<32 | uint64(p.order.Uint32(h[8:]))
		rec.Time = i.time(rec.origin.stamp)
		rec.captured, length = p.order.Uint32(h[12:]), p.order.Uint32(h[16:])
	}
	if int64(rec.captured) > body {
		return record{}, fmt.Errorf("%d captured bytes do not fit a block with %d left", rec.captured, body)
	}
	rec.Missing, rec.rest = missing(rec.captured, length), body-int64(rec.captured)+4
	return rec, nil
}
