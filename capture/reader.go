// Package capture reads frames from pcap and pcapng files, writes them to pcapng with a verdict
// as each frame's comment, and makes the status trailer a gopacket layer.
//
// It opens no interfaces and keeps no frames: a Reader has one buffer, which the next frame
// overwrites. Why it does not use gopacket's pcapgo or its fork is in
// docs/decisions/0005-capture.md.
package capture

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/bits"
	"slices"
	"time"

	"tapsec/status"
)

// MaxFrame is the longest captured frame that a Reader accepts, in bytes. It
// is libpcap's largest snap length.
const MaxFrame = 262144

// Info is what a capture says about a frame.
type Info struct {
	Number    int       // of the frame in the capture, from 1
	Time      time.Time // zero if the capture has none
	Interface string    // name of the capture's interface, if it has one
	Missing   int       // bytes at the frame's end that the snap length cut off
	Carrier   string    // what the frame was taken out of (Reader.Open)

	origin origin
}

// origin is what a Copy keeps of a frame's record.
type origin struct {
	order   binary.ByteOrder // of the section
	id      uint32           // of the interface
	stamp   uint64           // in the interface's units
	options []byte           // of a pcapng block, in the section's byte order
}

// record is a frame about to be read: its link type, the number of its bytes that follow, and
// the number to skip after those.
type record struct {
	Info
	link     uint32
	host     bool // of an interface that Delivered describes
	captured uint32
	rest     int64
	options  bool // the rest is padding, options, and the block's length
}

// Delivered describes the interface of frames as a NIC of tapsec delivers them, in a capture that
// has them beside the frames as they came.
const Delivered = "frames as they are delivered"

// Skipped counts frames of one interface with a link type that is not understood, or those that
// SkipDelivered is about.
type Skipped struct {
	Interface string // may be empty
	LinkType  uint32
	Delivered bool
	Frames    int
}

// String gives the number of frames, why they are left out, and the interface.
func (s Skipped) String() string {
	of := ""
	if s.Interface != "" {
		of = " of interface " + s.Interface
	}
	if s.Delivered {
		return fmt.Sprintf("%d%s as tapsec delivered them, judged already; tapsec show tells of those", s.Frames, of)
	}
	return fmt.Sprintf("%d%s with link type %s", s.Frames, of, linkTypeName(s.LinkType))
}

// format is one of the file formats. header reads up to a frame's first byte. Its error is
// io.EOF only if the capture ends between two records.
type format interface {
	header(in *bufio.Reader) (record, error)
}

// Reader reads a capture. It is not safe for concurrent use.
type Reader struct {
	in       *bufio.Reader
	idle     *idle
	format   format
	frames   int
	own      Buffer // of Next
	skipped  []Skipped
	onlyWire bool
	open     func([]byte) ([]byte, string) // nil: frames are given as they are
	copy     *Copy                         // nil: nothing is copied
}

// NewReader starts to read a capture: pcap with microseconds or nanoseconds, also with
// Kuznetzov's longer records, or pcapng, in either byte order, plain or compressed by gzip,
// zstd or lz4. A pcap file whose link type is not understood is an error.
func NewReader(r io.Reader) (*Reader, error) {
	source := &idle{Reader: r}
	in, err := plain(bufio.NewReaderSize(source, 1<<16))
	if err != nil {
		return nil, fmt.Errorf("capture: %w", err)
	}
	magic, err := in.Peek(4)
	if err == io.EOF && len(magic) == 0 {
		return nil, cutShort("capture: expected a pcap or pcapng file, found nothing at all")
	}
	if err != nil {
		return nil, fmt.Errorf("capture: no pcap or pcapng header: %w", unexpected(err))
	}
	f, err := formatOf(binary.LittleEndian.Uint32(magic), in)
	if err != nil {
		return nil, fmt.Errorf("capture: %w", err)
	}
	reader := &Reader{in: in, idle: source, format: f}
	if ng, ok := f.(*pcapng); ok {
		ng.reader = reader
	}
	return reader, nil
}

// idle calls do before each read of the file that may wait.
type idle struct {
	io.Reader
	do func()
}

func (i *idle) Read(b []byte) (int, error) {
	if i.do != nil {
		if w, ok := i.Reader.(interface{ MayWait() bool }); !ok || w.MayWait() {
			i.do()
		}
	}
	return i.Reader.Read(b)
}

// BeforeWait makes the Reader call do whenever it is about to wait for whoever writes the
// capture: the time to flush what was made of it so far. That is before each read of the file,
// unless this has a method MayWait() bool which says that it will not wait.
func (r *Reader) BeforeWait(do func()) { r.idle.do = do }

// SkipDelivered makes Next leave out frames as a NIC of tapsec delivered them (Delivered), whose
// opened headers no longer verify.
func (r *Reader) SkipDelivered() { r.onlyWire = true }

// Open makes Next give what open makes of each frame, in the same memory, and what it calls the
// carrier that it took off: Unwrap does that.
func (r *Reader) Open(open func(frame []byte) (inner []byte, carrier string)) { r.open = open }

// Skipped counts the frames left out so far.
func (r *Reader) Skipped() []Skipped { return r.skipped }

// Frames is how many frames have been read so far, those left out included.
func (r *Reader) Frames() int { return r.frames }

func formatOf(magic uint32, in *bufio.Reader) (format, error) {
	if magic == blockSection {
		return &pcapng{}, nil
	}
	for _, order := range []binary.ByteOrder{binary.LittleEndian, binary.BigEndian} {
		m := magic
		if order == binary.ByteOrder(binary.BigEndian) {
			m = bits.ReverseBytes32(magic)
		}
		switch m {
		case 0xa1b2c3d4:
			return newPcap(in, order, 1000, 16)
		case 0xa1b23c4d:
			return newPcap(in, order, 1, 16)
		case 0xa1b2cd34:
			return newPcap(in, order, 1000, 24)
		}
	}
	return nil, fmt.Errorf("expected a pcap or pcapng file, found %s", other(in))
}

// Buffer is the memory of one frame. The zero Buffer is ready, and a Reader lets it grow.
type Buffer struct{ frame, options []byte }

// Next reads a frame. It lies in the Reader's buffer until the next call, with status.Tailroom
// bytes of spare capacity. A frame without an Ethernet header gets one with zero addresses and
// the EtherType of what it carries. Frames of link types that are not understood are left out
// and counted. The error is io.EOF at the end of the capture; any other names the frame, and
// wraps io.ErrUnexpectedEOF if the file ends inside it.
func (r *Reader) Next() ([]byte, Info, error) { return r.NextTo(&r.own) }

// NextTo is Next to a buffer of the caller's, in which frame and Info lie until it is used again.
func (r *Reader) NextTo(b *Buffer) ([]byte, Info, error) {
	for {
		rec, err := r.format.header(r.in)
		if err == io.EOF {
			return nil, Info{}, io.EOF
		}
		rec.Number = r.frames + 1
		var frame []byte
		if err == nil {
			frame, err = r.read(&rec, b)
		}
		if err == nil {
			r.frames++
			if r.open != nil {
				frame, rec.Carrier = r.open(frame)
			}
			return frame, rec.Info, nil
		}
		why := Skipped{Interface: rec.Interface, Delivered: err == errDelivered}
		var foreign foreignLink
		if errors.As(err, &foreign) {
			why.LinkType = uint32(foreign)
		} else if !why.Delivered {
			return nil, rec.Info, fmt.Errorf("capture: frame %d: %w", rec.Number, err)
		}
		r.skip(&rec, why, b)
		r.frames++
	}
}

// errDelivered says that a frame is to be left out as delivered.
var errDelivered = errors.New("delivered by tapsec")

// skip counts a frame that is left out. A Copy keeps it, unless the link type is its own and not
// that of its interface, which is Ethernet there.
func (r *Reader) skip(rec *record, why Skipped, b *Buffer) {
	if r.copy != nil && (why.Delivered || why.LinkType == rec.link) {
		_ = r.copy.Frame(b.frame[etherLen:], rec.Info, "") // the Copy keeps its error
	}
	for i := range r.skipped {
		why.Frames = r.skipped[i].Frames
		if r.skipped[i] == why {
			r.skipped[i].Frames++
			return
		}
	}
	if why.Frames = 1; len(r.skipped) < maxSkipped {
		r.skipped = append(r.skipped, why)
	}
}

const maxSkipped = 1 << 10 // kinds

func (r *Reader) read(rec *record, b *Buffer) ([]byte, error) {
	if rec.captured > MaxFrame {
		return nil, fmt.Errorf("expected at most %d captured bytes, found %d%s", MaxFrame, rec.captured, damaged)
	}
	end := etherLen + int(rec.captured)
	b.frame = slices.Grow(b.frame[:0], end+status.Tailroom)[:end]
	if _, err := io.ReadFull(r.in, b.frame[etherLen:]); err != nil {
		return nil, unexpected(err)
	}
	if err := r.readRest(rec, b); err != nil {
		return nil, err
	}
	if rec.host && r.onlyWire {
		return nil, errDelivered
	}
	return ethernet(rec.link, b.frame)
}

// readRest reads what follows a frame. Its options are for a Copy.
func (r *Reader) readRest(rec *record, b *Buffer) error {
	if r.copy == nil {
		return skip(r.in, rec.rest)
	}
	rec.origin.order = r.copy.order
	padding := int64(-rec.captured & 3)
	length := rec.rest - padding - 4
	if !rec.options || length <= 0 || length > maxMetadata {
		return skip(r.in, rec.rest)
	}
	if err := skip(r.in, padding); err != nil {
		return err
	}
	b.options = slices.Grow(b.options[:0], int(length))[:length]
	if _, err := io.ReadFull(r.in, b.options); err != nil {
		return unexpected(err)
	}
	rec.origin.options = b.options
	return skip(r.in, 4)
}

// skip skips n bytes.
func skip(in *bufio.Reader, n int64) error {
	for n > 0 {
		step := int(min(n, 1<<30))
		if _, err := in.Discard(step); err != nil {
			return unexpected(err)
		}
		n -= int64(step)
	}
	return nil
}

// unexpected is err, but for the end of the file, which is none between two records.
func unexpected(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return cutShort("the file ends here, cut off or not yet written to its end")
	}
	return err
}

// begin reads the head of a record. The error is io.EOF where there is none.
func begin(in *bufio.Reader, head []byte) error {
	_, err := io.ReadFull(in, head)
	if err != nil && err != io.EOF {
		err = unexpected(err)
	}
	return err
}

// cutShort is io.ErrUnexpectedEOF in words.
type cutShort string

func (c cutShort) Error() string { return string(c) }

func (cutShort) Unwrap() error { return io.ErrUnexpectedEOF }

// damaged ends messages on a record that cannot be one.
const damaged = "; from here on the file is damaged, or another one was joined to it (mergecap joins captures)"

// pcap is the older format: a header of 24 bytes, then records of 16 bytes (24 in
// Kuznetzov's form) and the frame.
type pcap struct {
	order  binary.ByteOrder
	unit   int64 // nanoseconds in the unit of a timestamp's fraction
	length int   // of a record's header
	link   uint32
	head   [24]byte // scratch: a record's header
}

func newPcap(in *bufio.Reader, order binary.ByteOrder, unit int64, length int) (*pcap, error) {
	var h [24]byte
	if _, err := io.ReadFull(in, h[:]); err != nil {
		return nil, fmt.Errorf("the file ends inside its pcap header: %w", unexpected(err))
	}
	if major := order.Uint16(h[4:]); major != 2 {
		return nil, fmt.Errorf("expected pcap version 2, found %d", major)
	}
	// The upper half of the word says whether a checksum follows each frame; bytes
	// beyond the IP length are not part of a packet anyway.
	p := &pcap{order: order, unit: unit, length: length, link: order.Uint32(h[20:]) & 0xffff}
	return p, understood(p.link)
}

func (p *pcap) header(in *bufio.Reader) (record, error) {
	h := p.head[:]
	if err := begin(in, h[:p.length]); err != nil {
		return record{}, err
	}
	if err := p.doubt(in, h[:16]); err != nil {
		return record{}, err
	}
	captured, length := p.order.Uint32(h[8:]), p.order.Uint32(h[12:])
	seconds, fraction := int64(p.order.Uint32(h[:])), int64(p.order.Uint32(h[4:]))
	rec := record{link: p.link, captured: captured}
	rec.Time, rec.Missing = time.Unix(seconds, fraction*p.unit).UTC(), missing(captured, length)
	rec.origin.stamp = uint64(seconds*1e9/p.unit + fraction)
	return rec, nil
}

// doubt is the error for the head of a record that is none: zeros, as a machine that lost its
// power leaves at the end of a file, and the header of another file.
func (p *pcap) doubt(in *bufio.Reader, h []byte) error {
	var zeros [16]byte
	if bytes.Equal(h, zeros[:]) { // looking further may wait for whoever writes the capture
		if more, _ := in.Peek(len(zeros)); bytes.Equal(more, zeros[:]) {
			return errors.New("found zeros; the rest of the file was never written")
		}
	}
	if version := h[4:8]; bytes.Equal(h[8:], zeros[8:]) && p.order.Uint16(version) == 2 && p.order.Uint16(version[2:]) == 4 && p.order.Uint32(h)>>16 == 0xa1b2 {
		return errors.New("another capture begins here; mergecap joins captures")
	}
	return nil
}

// missing is the number of bytes that the capture lacks of a frame.
func missing(captured, length uint32) int { return int(max(captured, length) - captured) }
