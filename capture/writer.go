package capture

import (
	"encoding/binary"
	"fmt"
	"io"
	"time"
)

// Writer writes a pcapng file of Ethernet frames with timestamps in
// nanoseconds. Each block is one Write; it is not safe for concurrent use.
type Writer struct {
	out        io.Writer
	interfaces int
	buf        []byte
}

// NewWriter starts a pcapng file.
func NewWriter(out io.Writer) (*Writer, error) {
	w := &Writer{out: out}
	w.begin(blockSection)
	w.u32(byteOrderMagic)
	w.u32(1) // version 1.0
	w.u32(0xffffffff)
	w.u32(0xffffffff) // the section's length is not known
	w.option(optUserAppl, "tapsec")
	w.option(optEnd, "")
	return w, w.end()
}

// Interface describes a further interface and returns its number for Frame.
func (w *Writer) Interface(name, description string) (int, error) {
	w.begin(blockInterface)
	w.u32(linkEthernet)
	w.u32(0) // no snap length
	w.option(optName, name)
	if description != "" {
		w.option(optDescribed, description)
	}
	w.option(optTimeUnit, "\x09") // 10^-9 seconds
	w.option(optEnd, "")
	w.interfaces++
	return w.interfaces - 1, w.end()
}

// Frame writes a frame that was seen on an interface. The comment travels with
// it unless it is empty. A time before 1970 becomes 1970.
func (w *Writer) Frame(iface int, at time.Time, frame []byte, comment string) error {
	if iface < 0 || iface >= w.interfaces {
		return fmt.Errorf("capture: interface %d is not among the %d described", iface, w.interfaces)
	}
	stamp := uint64(0)
	if at.Unix() >= 0 {
		stamp = uint64(at.UnixNano())
	}
	w.begin(blockEnhanced)
	w.u32(uint32(iface))
	w.u32(uint32(stamp >> 32))
	w.u32(uint32(stamp))
	w.u32(uint32(len(frame))) // captured
	w.u32(uint32(len(frame))) // on the wire
	w.buf = append(w.buf, frame...)
	w.pad()
	if comment != "" {
		w.option(optComment, comment)
		w.option(optEnd, "")
	}
	return w.end()
}

// begin starts a block; end fills in its length and writes it.
func (w *Writer) begin(kind uint32) {
	w.buf = w.buf[:0]
	w.u32(kind)
	w.u32(0)
}

func (w *Writer) end() error {
	length := uint32(len(w.buf)) + 4
	w.u32(length)
	binary.LittleEndian.PutUint32(w.buf[4:], length)
	if _, err := w.out.Write(w.buf); err != nil {
		return fmt.Errorf("capture: writing pcapng: %w", err)
	}
	return nil
}

func (w *Writer) u32(v uint32) { w.buf = binary.LittleEndian.AppendUint32(w.buf, v) }

// option appends an option; the format has 16 bits for its length.
func (w *Writer) option(code uint16, v string) {
	v = v[:min(len(v), 0xffff)]
	w.u32(uint32(code) | uint32(len(v))<<16)
	w.buf = append(w.buf, v...)
	w.pad()
}

func (w *Writer) pad() {
	for len(w.buf)%4 != 0 {
		w.buf = append(w.buf, 0)
	}
}
