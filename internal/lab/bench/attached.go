package bench

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"

	"golang.org/x/sys/unix"

	"tapsec/internal/lab/rig"
	"tapsec/tap"
)

// The variants between attached veths.
const (
	NullCalls      = "null-calls"      // a thread, a read(2) and a write(2) of packet sockets for each frame
	NullMapped     = "null-mapped"     // the packet ring with an empty chain
	AttachedPlain  = "attached-plain"  // the appliance on the plain engine
	AttachedRing   = "attached-ring"   // the appliance on the packet ring
	NullDirect     = "null-direct"     // a packet ring, AF_XDP to send, and an empty chain
	AttachedDirect = "attached-direct" // the appliance on these
	NullXDP        = "null-xdp"        // AF_XDP with an empty chain
	AttachedXDP    = "attached-xdp"    // the appliance on AF_XDP
)

var attachedSizes = []int{64, Standard}

// attachedVariants are the variants that this machine can run, and why others are left out.
func attachedVariants() (all []string, lacking error) {
	all = []string{NullCalls, NullMapped, AttachedPlain, AttachedRing}
	if tap.CanSendDirect() == nil {
		all = append(all, NullDirect, AttachedDirect)
	}
	if lacking = tap.CanRedirect(); lacking == nil {
		all = append(all, NullXDP, AttachedXDP)
	}
	return all, lacking
}

// Attached is what was measured between veths.
type Attached struct {
	Rows   []Row              `json:"rows"`
	Ratios map[string]float64 `json:"ratios"` // of AttachedRing at Standard octets over each other variant
}

// attached reports whether a variant is between veths.
func (p plan) attached() bool {
	switch p.variant {
	case NullCalls, NullMapped, AttachedPlain, AttachedRing, NullDirect, AttachedDirect, NullXDP, AttachedXDP:
		return true
	}
	return false
}

// measureAttached drains frames from one veth to another. The sender's half of the kernel's work, which for a
// veth includes the copy into the receiver's ring, is done before the clocks are read.
func (r *Report) measureAttached(e effort) error {
	variants, lacking := attachedVariants()
	if lacking != nil {
		r.note("AF_XDP is left out: %v", lacking)
	}
	for _, size := range attachedSizes {
		rows, err := r.sweep(size, e, e.attached, variants, suites()[:1])
		if err != nil {
			return fmt.Errorf("%d octets: %w", size, err)
		}
		r.Attached.Rows = append(r.Attached.Rows, rows...)
	}
	r.Attached.divide()
	return nil
}

// divide fills in the ratios.
func (a *Attached) divide() {
	cpu := map[string]float64{}
	for _, row := range a.Rows {
		if row.Size == Standard {
			cpu[row.Variant] = row.CPU
		}
	}
	for _, under := range []string{NullCalls, NullMapped, AttachedPlain, NullDirect, AttachedDirect, NullXDP, AttachedXDP} {
		if cpu[under] > 0 {
			a.Ratios[under] = cpu[AttachedRing] / cpu[under]
		}
	}
}

func (f *forwarder) makeInterfaces(p plan) error {
	var remove func() error
	var err error
	if p.attached() {
		remove, err = rig.QuietVeths(p.mtu, f.wire, f.host)
	} else {
		remove, err = rig.QuietTAPs(p.queues > 1, f.wire, f.host)
	}
	if err == nil {
		f.closers = append(f.closers, remove)
	}
	return err
}

// openCalls does what a program does that uses packet sockets without rings.
func (f *forwarder) openCalls(p plan) error {
	if err := f.makeInterfaces(p); err != nil {
		return err
	}
	from, err1 := f.packetSocket(f.wire, unix.ETH_P_ALL)
	to, err2 := f.packetSocket(f.host, 0)
	if err := errors.Join(err1, err2); err != nil {
		return err
	}
	f.forward(p, from, to)
	return nil
}

// packetSocket opens a blocking packet socket. It receives what others send to the interface.
func (f *forwarder) packetSocket(name string, protocol int) (int, error) {
	link, err := net.InterfaceByName(name)
	if err != nil {
		return -1, err
	}
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	f.closers = append(f.closers, func() error { return unix.Close(fd) })
	network := binary.BigEndian.Uint16(binary.NativeEndian.AppendUint16(nil, uint16(protocol)))
	return fd, errors.Join(unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: network, Ifindex: link.Index}),
		unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1),
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, 32<<20))
}

func (r *Report) writeAttached(w io.Writer) {
	section(w, "Nanoseconds of the processor for a frame from one attached veth to another", "suite\tpayload\tvariant\tns\tframes/s\t\n", r.Attached.Rows, func(row Row) {
		fmt.Fprintf(w, "%s\t%d\t%s\t%.0f (%.0f-%.0f)\t%.0f\t\n", row.Suite, row.Size, row.Variant, row.CPU, row.CPUSpread.Q1, row.CPUSpread.Q3, row.Rate)
	})
}
