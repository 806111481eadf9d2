package tap

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"tapsec/internal/segment"
)

// Merging says which packets pass merged between a TAP's program and the kernel, each with all headers
// once and a virtio header in front (linux/virtio_net.h). Its text is the names with commas.
type Merging uint8

const (
	TSO  Merging = 1 << iota // TCP that the stack sends
	USO                      // UDP that the stack sends
	GRO                      // TCP and UDP that the stack receives
	Wire                     // ESP in UDP, over IPv4 without a checksum, between two programs, one of which has attached the other's TAP
)

// AllMerging is all there is.
const AllMerging = TSO | USO | GRO | Wire

var mergingNames = []string{"tso", "uso", "gro", "wire"}

// String returns the text.
func (m Merging) String() string {
	text, _ := m.MarshalText() // has no error
	return string(text)
}

// MarshalText returns the names, "none" for none of them.
func (m Merging) MarshalText() ([]byte, error) {
	var names []string
	for i, name := range mergingNames {
		if m&(1<<i) != 0 {
			names = append(names, name)
		}
	}
	if len(names) == 0 {
		return []byte("none"), nil
	}
	return []byte(strings.Join(names, ",")), nil
}

// UnmarshalText takes names; "all" and "none" are names as well.
func (m *Merging) UnmarshalText(text []byte) error {
	var got Merging
	for name := range strings.SplitSeq(string(text), ",") {
		switch i := slices.Index(mergingNames, name); {
		case i >= 0:
			got |= 1 << i
		case name == "all":
			got |= AllMerging
		case name != "none":
			return fmt.Errorf("expected some of %s with commas, all or none, found %q", strings.Join(mergingNames, ", "), text)
		}
	}
	*m = got
	return nil
}

// Features of TUNSETOFFLOAD in linux/if_tun.h.
const (
	offerSum  = 0x01
	offerTSO  = 0x02 | 0x04 | 0x08 // IPv4, IPv6, and with ECN
	offerUSO  = 0x20 | 0x40        // Linux 6.2
	virtioLen = segment.HeaderLen
)

// openMerging attaches one more descriptor, with a virtio header before each frame.
func openMerging(name string, multi bool) (*os.File, error) {
	fd, err := unix.Open(controlFile, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, explainControl(err)
	}
	ifr, err := unix.NewIfreq(name)
	if err == nil {
		flags := uint16(unix.IFF_VNET_HDR)
		if multi {
			flags |= unix.IFF_MULTI_QUEUE
		}
		err = attach(fd, ifr, flags)
	}
	if err == nil {
		err = unix.IoctlSetPointerInt(fd, unix.TUNSETVNETHDRSZ, virtioLen)
	}
	if err != nil {
		unix.Close(fd)
		return nil, err
	}
	return unpolled(fd, name)
}

// offer tells the kernel what it may hand over merged, and notes which of that the kernel supports:
// before Linux 6.2 it knew no merged UDP. A persistent interface keeps what it was told last, so it is told
// even if that is nothing.
func (d *Device) offer(asked Merging) error {
	features := 0
	if asked&TSO != 0 {
		features = offerSum | offerTSO
	}
	err := d.tell(features | offerSum | offerUSO)
	if err != nil && !errors.Is(err, unix.EINVAL) {
		return err
	}
	d.merging, d.takesUDP = asked, err == nil
	if err != nil {
		d.merging &^= USO | Wire
	}
	if d.merging&(USO|Wire) != 0 {
		return nil
	}
	return d.tell(features)
}

// withdraw leaves a persistent interface as its next user expects it.
func (d *Device) withdraw() {
	if d.virtio && len(d.queues) > 0 {
		_ = d.tell(0) // the interface may be gone
	}
}

func (d *Device) tell(features int) error {
	err := control(d.queues[0], func(fd int) error { return unix.IoctlSetInt(fd, unix.TUNSETOFFLOAD, features) })
	if err != nil {
		return fmt.Errorf("interface %s: tell it what may pass merged: %w", d.name, err)
	}
	return nil
}

// Merging returns what passes merged.
func (d *Device) Merging() Merging { return d.merging }

// prefix is the length in bytes of what precedes each frame received.
func (d *Device) prefix() int {
	if d.virtio {
		return virtioLen
	}
	return 0
}
