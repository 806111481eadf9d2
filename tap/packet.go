package tap

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// receiveBuffer is how many bytes of frames may wait while nobody receives. Without CAP_NET_ADMIN
// the kernel grants no more than net.core.rmem_max.
const receiveBuffer = 32 << 20

// Attach takes part in an existing interface of any kind, in the current namespace, by way of packet
// sockets (packet(7)). Frames that others send to the interface are received, whatever their
// destination address; frames written leave by it. It has one queue. It needs CAP_NET_RAW.
//
// The machine's own stack stays where it is. It receives a copy of every frame, and answers those
// for its own addresses: give the interface none. What it sends by the interface leaves unseen.
//
// A checksum that a sender left to hardware, as one on the other end of a veth does, is filled in, and
// frames that the kernel has merged, or not yet cut, are cut (internal/segment). Frames for an interface
// that is up and has no carrier the kernel takes, and loses
// them without a word.
func Attach(name string) (*Device, error) {
	if err := CheckName(name); err != nil {
		return nil, err
	}
	index, err := indexOf(name)
	if err != nil {
		return nil, fmt.Errorf("interface %s is not there: make it first, or look in which namespace it is (%w)", name, err)
	}
	d := &Device{name: name}
	in, err := packetSocket(name, index, unix.ETH_P_ALL, hearAll)
	if err != nil {
		return nil, err
	}
	d.queues = []*os.File{in}
	// A socket that tells the checksums' state wants to be told it too, so another one writes.
	if d.out, err = packetSocket(name, index, 0, nil); err == nil {
		err = d.openTable()
	}
	if err != nil {
		return nil, errors.Join(err, d.Close())
	}
	return d, nil
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

// packetSocket opens a socket bound to an interface. Before it is bound to a protocol it hears
// nothing, and so never a frame of another interface. The runtime's poller does not know it, which each
// frame that comes, and each that has left, would wake.
func packetSocket(name string, index, protocol int, prepare func(fd, index int) error) (*os.File, error) {
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if errors.Is(err, unix.EPERM) {
		return nil, fmt.Errorf("a packet socket on %s needs CAP_NET_RAW: run as root (%w)", name, err)
	}
	if err != nil {
		return nil, fmt.Errorf("packet socket: %w", err)
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
		return nil, fmt.Errorf("packet socket on %s: %w", name, err)
	}
	return unpolled(fd, name)
}

// hearAll readies the receiving socket: frames to any address, none that leave by the interface, and
// with each what its bytes do not tell.
func hearAll(fd, index int) error {
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
	return unix.SetsockoptPacketMreq(fd, unix.SOL_PACKET, unix.PACKET_ADD_MEMBERSHIP,
		&unix.PacketMreq{Ifindex: int32(index), Type: unix.PACKET_MR_PROMISC})
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
