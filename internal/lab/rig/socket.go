package rig

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"tapsec/internal/segment"
)

const (
	receiveBuffer = 32 << 20 // bytes of frames that may wait while nobody receives
	largestFrame  = 1 << 17
)

// Socket sends and receives whole Ethernet frames on one interface, from the kernel's side. Only a Socket
// made by Overhear also receives what is sent out of the interface. One goroutine may send and one receive.
type Socket struct {
	file  *os.File
	raw   syscall.RawConn
	frame []byte
	aux   []byte
	stamp time.Time

	apart  bool // a virtio header stands in front of each frame
	cutter segment.Cutter
	piece  []byte
}

// OpenSocket opens a packet socket on an interface of the current namespace.
func OpenSocket(name string) (*Socket, error) { return open(name, true) }

// Overhear opens a packet socket that also receives what others send out of the interface.
func Overhear(name string) (*Socket, error) { return open(name, false) }

func open(name string, incoming bool) (*Socket, error) {
	ifi, err := net.InterfaceByName(name)
	if err != nil {
		return nil, fmt.Errorf("interface %s: %w: look in which namespace it is", name, errors.Unwrap(err)) // without what Go asked for
	}
	// Protocol 0 keeps other interfaces' frames out until the socket is bound.
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("packet socket: %w", err)
	}
	if err := prepare(fd, ifi.Index, incoming); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("packet socket on %s: %w", name, err)
	}
	s := &Socket{file: os.NewFile(uintptr(fd), name), frame: make([]byte, largestFrame),
		aux: make([]byte, unix.CmsgSpace(int(unsafe.Sizeof(unix.TpacketAuxdata{})))+unix.CmsgSpace(int(unsafe.Sizeof(unix.Timespec{}))))}
	s.raw, err = s.file.SyscallConn()
	return s, err
}

func prepare(fd, index int, incoming bool) error {
	if unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, receiveBuffer) != nil {
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, receiveBuffer); err != nil {
			return err
		}
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_AUXDATA, 1); err != nil {
		return err
	}
	if incoming {
		if err := unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1); err != nil {
			return err
		}
	}
	all := binary.BigEndian.Uint16(binary.NativeEndian.AppendUint16(nil, unix.ETH_P_ALL))
	return unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: index})
}

// Apart makes merged packets, and those whose checksum is left to hardware, come as the frames they stand for
// on a wire; without it they come as they are. Packets that no virtio header can describe then do not come at
// all.
func (s *Socket) Apart() error {
	err := s.enable(unix.SOL_PACKET, unix.PACKET_VNET_HDR)
	s.apart = err == nil
	return err
}

// enable sets an option of the socket.
func (s *Socket) enable(level, option int) (err error) {
	failed := s.raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), level, option, 1) })
	return errors.Join(failed, err)
}

// Send sends one frame, which begins with its Ethernet header. It waits while the interface is busy.
func (s *Socket) Send(frame []byte) error {
	if s.apart {
		frame = append(make([]byte, segment.HeaderLen), frame...)
	}
	var inner error
	err := s.raw.Write(func(fd uintptr) bool {
		_, inner = unix.Write(int(fd), frame)
		return inner != unix.EAGAIN
	})
	if err == nil {
		err = inner
	}
	return err
}

// Receive waits for a frame, at most for timeout, after which it returns os.ErrDeadlineExceeded. The frame,
// padding and trailers included, is valid until the next call.
func (s *Socket) Receive(timeout time.Duration) ([]byte, error) {
	if s.cutter.Len() > 0 {
		s.piece = s.cutter.Append(s.piece[:0])
		return s.piece, nil
	}
	if err := s.file.SetReadDeadline(time.Now().Add(timeout)); err != nil {
		return nil, err
	}
	var frame []byte
	var inner error
	err := s.raw.Read(func(fd uintptr) bool {
		frame, inner = s.read(int(fd))
		return inner != unix.EAGAIN
	})
	if err == nil {
		err = inner
	}
	return frame, err
}

// KeepTime makes the kernel note when each frame comes, beginning a moment later; see Came.
func (s *Socket) KeepTime() error { return s.enable(unix.SOL_SOCKET, unix.SO_TIMESTAMPNS) }

// Came is when the kernel got the last frame received, by its time of day, after KeepTime.
func (s *Socket) Came() time.Time { return s.stamp }

// read receives one frame, or the first of several that came merged.
func (s *Socket) read(fd int) ([]byte, error) {
	n, oobn, _, _, err := unix.Recvmsg(fd, s.frame[tagLen:], s.aux, 0)
	if err != nil {
		return nil, err
	}
	from := tagLen
	var h segment.Header
	if s.apart {
		h = segment.Parse(s.frame[from:])
		from += segment.HeaderLen
	}
	frame, err := s.complete(s.frame[:tagLen+n], from, oobn)
	if err != nil || !s.apart {
		return frame, err
	}
	if h = h.Shift(len(frame) - (tagLen + n - from)); !h.Merged() {
		h.Finish(frame)
		return frame, nil
	}
	if !s.cutter.Begin(h, frame) {
		return nil, fmt.Errorf("%d bytes came merged and cannot be cut", len(frame))
	}
	s.piece = s.cutter.Append(s.piece[:0])
	return s.piece, nil
}

const tagLen = 4

// complete puts the outer VLAN tag, which the kernel delivers separately, back after the two addresses of the
// frame that begins at from, and notes the time. There is room for the tag before the frame.
func (s *Socket) complete(b []byte, from, oobn int) ([]byte, error) {
	const addresses = 12
	messages, err := unix.ParseSocketControlMessage(s.aux[:oobn])
	if err != nil || len(b)-from < addresses {
		return b[from:], err
	}
	frame := b[from:]
	for _, m := range messages {
		if m.Header.Level == unix.SOL_SOCKET && m.Header.Type == unix.SCM_TIMESTAMPNS {
			s.stamp = time.Unix((*unix.Timespec)(unsafe.Pointer(&m.Data[0])).Unix())
			continue
		}
		if m.Header.Level != unix.SOL_PACKET || m.Header.Type != unix.PACKET_AUXDATA {
			continue
		}
		aux := (*unix.TpacketAuxdata)(unsafe.Pointer(&m.Data[0]))
		if aux.Status&unix.TP_STATUS_VLAN_VALID == 0 {
			continue
		}
		copy(b[from-tagLen:], frame[:addresses])
		frame = b[from-tagLen:]
		binary.BigEndian.PutUint16(frame[addresses:], aux.Vlan_tpid)
		binary.BigEndian.PutUint16(frame[addresses+2:], aux.Vlan_tci)
	}
	return frame, nil
}

// Close closes the socket and wakes whoever waits on it.
func (s *Socket) Close() error { return s.file.Close() }
