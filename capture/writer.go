package capture

import (
	"encoding/binary"
	"fmt"
	"io"
	"time"
)

// Writer writes a pcapng file of Ethernet frames with timestamps in nanoseconds, each block by
// one Write. It is not safe for concurrent use.
type Writer struct {
	blocks     Copy
	interfaces int
	options    []byte // scratch: a frame's marks
}

// NewWriter starts a pcapng file.
func NewWriter(out io.Writer) (*Writer, error) {
	w := &Writer{blocks: Copy{out: out, builder: builder{order: binary.LittleEndian}}}
	w.blocks.begin(blockSection)
	w.blocks.u32(byteOrderMagic)
	w.blocks.u32(1) // version 1.0
	w.blocks.u32(0xffffffff)
	w.blocks.u32(0xffffffff) // the section's length is not known
	w.blocks.option(optUserAppl, "tapsec")
	w.blocks.option(optEnd, "")
	w.blocks.put()
	return w, w.blocks.err
}

// Interface describes a further interface and returns its number for Frame.
func (w *Writer) Interface(name, description string) (int, error) {
	w.blocks.begin(blockInterface)
	w.blocks.u32(linkEthernet)
	w.blocks.u32(0) // no snap length
	w.blocks.option(optName, name)
	if description != "" {
		w.blocks.option(optDescribed, description)
	}
	w.blocks.option(optTimeUnit, "\x09") // 10^-9 seconds
	w.blocks.option(optEnd, "")
	w.blocks.put()
	w.interfaces++
	return w.interfaces - 1, w.blocks.err
}

// Mark is what a block says of a frame beside its bytes and its comment.
type Mark struct {
	Packet  uint64 // the same where two interfaces saw the same frame; 0: not said
	Queue   uint32 // that it came through
	Verdict []byte // the hardware's, in its own form; nil: none
	Lost    uint64 // frames of this interface that are missing before it
	Missing int    // bytes at its end that are left out
}

// Frame writes a frame seen on an interface, with a comment unless that is empty. A time before
// 1970 becomes 1970.
func (w *Writer) Frame(iface int, at time.Time, frame []byte, comment string) error {
	return w.frame(iface, at, frame, comment, nil, 0)
}

// Marked is Frame with marks (draft-ietf-opsawg-pcapng, section 4.3).
func (w *Writer) Marked(iface int, at time.Time, frame []byte, comment string, m *Mark) error {
	w.options = w.options[:0]
	le := binary.LittleEndian
	if m.Lost > 0 {
		w.option(optLost, le.AppendUint64(nil, m.Lost)...)
	}
	if m.Packet > 0 {
		w.option(optPacketID, le.AppendUint64(nil, m.Packet)...)
		w.option(optQueue, le.AppendUint32(nil, m.Queue)...)
	}
	if m.Verdict != nil {
		const hardware = 0
		w.option(optVerdict, append([]byte{hardware}, m.Verdict...)...)
	}
	return w.frame(iface, at, frame, comment, w.options, m.Missing)
}

func (w *Writer) frame(iface int, at time.Time, frame []byte, comment string, options []byte, missing int) error {
	if iface < 0 || iface >= w.interfaces {
		return fmt.Errorf("capture: interface %d is not among the %d described", iface, w.interfaces)
	}
	info := Info{Missing: missing, origin: origin{order: w.blocks.order, id: uint32(iface), stamp: uint64(max(at.UnixNano(), 0)), options: options}}
	return w.blocks.Frame(frame, info, comment)
}

func (w *Writer) option(code uint16, v ...byte) {
	le := binary.LittleEndian
	w.options = le.AppendUint16(le.AppendUint16(w.options, code), uint16(len(v)))
	w.options = append(append(w.options, v...), make([]byte, -len(v)&3)...)
}

// Counts are those of an interface since its capture began, in frames.
type Counts struct {
	Received uint64 // by the interface
	Accepted uint64 // by the capture's filter, as far as it was asked; the lost ones included
	Lost     uint64 // that nobody had room for
}

// Counts writes what was counted on an interface. Of several the last one counts.
func (w *Writer) Counts(iface int, at time.Time, c Counts) error {
	b := &w.blocks
	stamp := uint64(max(at.UnixNano(), 0))
	b.begin(blockCounts)
	b.u32(uint32(iface))
	b.u32(uint32(stamp >> 32))
	b.u32(uint32(stamp))
	for _, o := range []struct {
		code  uint16
		value uint64
	}{{optReceived, c.Received}, {optDropped, c.Lost}, {optAccepted, c.Accepted}} {
		b.option(o.code, string(binary.LittleEndian.AppendUint64(nil, o.value)))
	}
	b.option(optEnd, "")
	b.put()
	return b.err
}
