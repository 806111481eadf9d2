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
}

// NewWriter starts a pcapng file.
func NewWriter(out io.Writer) (*Writer, error) {
	w := &Writer{blocks: Copy{out: out, order: binary.LittleEndian}}
	w.blocks.begin(blockSection)
	w.blocks.u32(byteOrderMagic)
	w.blocks.u32(1) // version 1.0
	w.blocks.u32(0xffffffff)
	w.blocks.u32(0xffffffff) // the section's length is not known
	w.blocks.option(optUserAppl, "tapsec")
	w.blocks.option(optEnd, "")
	w.blocks.end()
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
	w.blocks.end()
	w.interfaces++
	return w.interfaces - 1, w.blocks.err
}

// Frame writes a frame seen on an interface, with a comment unless that is empty. A time before
// 1970 becomes 1970.
func (w *Writer) Frame(iface int, at time.Time, frame []byte, comment string) error {
	if iface < 0 || iface >= w.interfaces {
		return fmt.Errorf("capture: interface %d is not among the %d described", iface, w.interfaces)
	}
	info := Info{origin: origin{id: uint32(iface), stamp: uint64(max(at.UnixNano(), 0))}}
	return w.blocks.Frame(frame, info, comment)
}
