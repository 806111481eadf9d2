package tap

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// receiveBuffer is how many bytes of frames may wait while nobody receives. Without CAP_NET_ADMIN
// the kernel grants no more than net.core.rmem_max.
const receiveBuffer = 32 << 20

// Attach joins an existing interface of any kind, in the current namespace, through packet sockets
// (packet(7)). Frames that others send to the interface are received, whatever their destination address;
// frames written are sent out of it. It has one queue: see AttachQueues. It needs CAP_NET_RAW.
//
// The machine's own stack stays in place. It receives a copy of every frame and answers those to its own
// addresses, so give the interface none. What that stack sends is not seen here.
//
// A checksum that the sender left to hardware, as the other end of a veth does, is filled in. Frames that
// the kernel has merged, or not yet cut, are cut (internal/segment). The kernel silently loses frames for
// an interface that is up but has no carrier.
func Attach(name string) (*Device, error) { return AttachQueues(name, 1) }

// AttachQueues is Attach with several queues, each a socket that takes its share of the frames. A program
// on each socket decides which those are. Loading it needs CAP_BPF, unless the kernel lets anybody load
// one:
//
//	queue = lower 16 bits of the outermost SPI, modulo queues
//
// as with Steer for a TAP, except that ESP in UDP goes by addresses and ports: a merged frame of several
// datagrams may hold those of several SAs. So all frames of an SA come through one queue, in order, even
// while the interface goes down and up. In the kernel each frame costs one run of the program for each
// queue.
func AttachQueues(name string, queues int) (*Device, error) {
	if err := CheckName(name); err != nil {
		return nil, err
	}
	index, err := indexOf(name)
	if err != nil && !errors.Is(err, unix.ENODEV) {
		return nil, fmt.Errorf("look for interface %s: %w", name, err)
	}
	if err != nil {
		return nil, fmt.Errorf("interface %s is not there: make it first, or look in which namespace it is (%w)", name, err)
	}
	d := &Device{name: name, lost: make([]atomic.Uint64, queues)}
	for queue := range queues {
		if err == nil {
			err = d.attach(index, queue, queues)
		}
	}
	if err == nil {
		err = d.openTable()
	}
	if err != nil {
		return nil, errors.Join(err, d.Close())
	}
	return d, nil
}

// attach opens the sockets of one queue. A socket that reports checksum state also expects it with frames
// written, so another socket writes.
func (d *Device) attach(index, queue, queues int) error {
	in, err := packetSocket(d.name, index, unix.ETH_P_ALL, func(fd, index int) error {
		if queues > 1 {
			if err := takeShare(fd, queue, queues); err != nil {
				return err
			}
		}
		return hearAll(fd, index)
	})
	if err != nil {
		return err
	}
	d.queues = append(d.queues, in)
	out, err := packetSocket(d.name, index, 0, nil)
	if err != nil {
		return err
	}
	d.outs = append(d.outs, out)
	return nil
}

// takeShare makes a socket take the frames of one of several queues.
func takeShare(fd, queue, queues int) error {
	p, err := load(shareProgram(queue, queues))
	if err != nil {
		return explained{fmt.Errorf("several queues: %w: or have one", err)}
	}
	defer p.Close() // the socket keeps it
	return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ATTACH_BPF, p.FD())
}

func indexOf(name string) (int, error) {
	ifr, err := unix.NewIfreq(name)
	if err != nil {
		return 0, err
	}
	if err := interfaceIoctl(unix.SIOCGIFINDEX, ifr); err != nil {
		return 0, err
	}
	return int(ifr.Uint32()), nil
}

// packetSocket opens a socket bound to an interface. Until it is bound to a protocol it receives nothing,
// and so never a frame of another interface. It is kept from the runtime's poller, which every frame
// received or sent would wake.
func packetSocket(name string, index, protocol int, prepare func(fd, index int) error) (*os.File, error) {
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if errors.Is(err, unix.EPERM) {
		return nil, fmt.Errorf("a packet socket on %s needs CAP_NET_RAW: run as root (%w)", name, err)
	}
	if err != nil {
		return nil, fmt.Errorf("packet socket for %s: %w", name, withAdvice(err))
	}
	if prepare != nil {
		err = prepare(fd, index)
	}
	if err == nil {
		network := binary.BigEndian.Uint16(binary.NativeEndian.AppendUint16(nil, uint16(protocol)))
		err = unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: network, Ifindex: index})
	}
	if err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("packet socket on %s: %w", name, withAdvice(err))
	}
	return unpolled(fd, name)
}

// hearAll prepares the receiving socket of a program that acts as the stack: it gets frames to any
// address.
func hearAll(fd, index int) error {
	if err := hear(fd); err != nil {
		return err
	}
	return unix.SetsockoptPacketMreq(fd, unix.SOL_PACKET, unix.PACKET_ADD_MEMBERSHIP,
		&unix.PacketMreq{Ifindex: int32(index), Type: unix.PACKET_MR_PROMISC})
}

// hear prepares a receiving socket: it gets no frames that the interface sends, and with each frame what
// its bytes do not show.
func hear(fd int) error {
	if unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, receiveBuffer) != nil {
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, receiveBuffer); err != nil {
			return err
		}
	}
	for _, option := range []int{unix.PACKET_AUXDATA, unix.PACKET_VNET_HDR, unix.PACKET_IGNORE_OUTGOING} {
		if err := unix.SetsockoptInt(fd, unix.SOL_PACKET, option, 1); err != nil {
			return err
		}
	}
	return nil
}

// boundIndex returns the index of a packet socket's interface. A deleted interface, or one that left
// the namespace, has none.
func boundIndex(fd int) (int, error) {
	a, err := unix.Getsockname(fd)
	if err != nil {
		return 0, err
	}
	if ll, ok := a.(*unix.SockaddrLinklayer); ok && ll.Ifindex > 0 {
		return ll.Ifindex, nil
	}
	return 0, unix.ENODEV
}
