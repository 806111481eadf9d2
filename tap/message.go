package tap

import (
	"encoding/binary"
	"errors"
	"unsafe"

	"golang.org/x/sys/unix"

	"tapsec/internal/segment"
)

const (
	addresses = 12 // bytes of an Ethernet header before a VLAN tag
	tagLength = 4

	near    = 2048           // bytes of a frame that are received directly into its slot
	longest = 8*65535 + 1024 // bytes of a merged frame: the kernel's own limit (GSO_MAX_SIZE) and headers
)

// errUncut is for a merged frame that cannot be cut.
var errUncut = errors.New("merged in a way that cannot be cut")

// message receives frames of a packet socket, or of a TAP that merges, with what the kernel delivers
// besides their bytes. It is made once for a direction, so that no frame allocates.
type message struct {
	socket  bool
	header  unix.Msghdr
	parts   [2]unix.Iovec
	control [8]uint64 // room for one control message, aligned
	cutter  segment.Cutter
	long    []byte // head room, then a merged frame, or the rest of one longer than near
}

func newMessage(socket bool) *message {
	return &message{socket: socket, long: make([]byte, head+longest)}
}

// pending reports whether pieces of a merged frame are left.
func (m *message) pending() bool { return m.cutter.Len() > 0 }

// receive reads one frame into slot after its head room. The frame returned may begin in the head room. A
// frame longer than the slot is EMSGSIZE.
//
//  1. Hand out what is left of a merged frame.
//  2. Receive a frame after its virtio header, and the control message.
//  3. Put a merged one together, with its outer VLAN tag, which the kernel has taken out.
//  4. Put any other into the slot, with its checksum and its tag.
func (m *message) receive(fd int, slot []byte) ([]byte, error) {
	if m.pending() {
		return m.piece(slot)
	}
	first := min(near, len(slot)-head)
	n, err := m.read(fd, slot, first)
	if err != nil {
		return nil, err
	}
	h := segment.Parse(slot[head-segment.HeaderLen:])
	if h.Merged() {
		copy(m.long[head:], slot[head:head+min(n, first)])
		merged := m.tag(m.long, n)
		return m.begin(h.Shift(len(merged)-n), merged, slot)
	}
	if n > len(slot)-head {
		return nil, unix.EMSGSIZE
	}
	if n > first {
		copy(slot[head+first:], m.long[head+first:head+n])
	}
	h.Finish(slot[head : head+n])
	return m.tag(slot, n), nil
}

// cut puts the first piece of a merged frame, of which it keeps a copy, into a slot.
func (m *message) cut(h segment.Header, frame, slot []byte) ([]byte, error) {
	return m.begin(h, append(m.long[:0], frame...), slot)
}

func (m *message) begin(h segment.Header, merged, slot []byte) ([]byte, error) {
	if !m.cutter.Begin(h, merged) {
		return nil, errUncut
	}
	return m.piece(slot)
}

// piece puts the next piece of a merged frame into a slot.
func (m *message) piece(slot []byte) ([]byte, error) {
	if m.cutter.Len() > len(slot)-head {
		m.cutter.Skip()
		return nil, unix.EMSGSIZE
	}
	return m.cutter.Append(slot[head:head]), nil
}

// read receives a frame and returns its length: its first bytes go into the slot, the rest to their place
// in m.long. EINVAL means that the kernel threw the frame away, because a virtio header cannot say how it
// was merged.
func (m *message) read(fd int, slot []byte, first int) (int, error) {
	m.parts[0].Base = &slot[head-segment.HeaderLen]
	m.parts[0].SetLen(segment.HeaderLen + first)
	m.parts[1].Base = &m.long[head+first]
	m.parts[1].SetLen(longest - first)
	if !m.socket {
		n, _, errno := unix.Syscall(unix.SYS_READV, uintptr(fd), uintptr(unsafe.Pointer(&m.parts)), uintptr(len(m.parts)))
		if errno != 0 {
			return 0, errno
		}
		return int(n) - segment.HeaderLen, nil
	}
	m.header.Iov, m.header.Iovlen = &m.parts[0], uint64(len(m.parts))
	m.header.Control = (*byte)(unsafe.Pointer(&m.control))
	m.header.SetControllen(int(unsafe.Sizeof(m.control)))
	n, _, errno := unix.Syscall(unix.SYS_RECVMSG, uintptr(fd), uintptr(unsafe.Pointer(&m.header)), 0)
	switch {
	case errno == unix.EINVAL:
		return 0, errUncut
	case errno != 0:
		return 0, errno
	case m.header.Flags&unix.MSG_TRUNC != 0:
		return 0, unix.EMSGSIZE
	}
	return int(n) - segment.HeaderLen, nil
}

// tag returns the frame of n bytes after the head room in memory, with the VLAN tag that the kernel
// delivered separately put back.
func (m *message) tag(memory []byte, n int) []byte {
	if tci, tpid, tagged := m.auxiliary(); tagged && n >= addresses {
		return putTag(memory[head-tagLength:head+n], tpid, tci)
	}
	return memory[head : head+n]
}

// putTag puts a VLAN tag after the addresses of a frame that begins a tag's length after b does, and returns b.
func putTag(b []byte, tpid, tci uint16) []byte {
	copy(b, b[tagLength:tagLength+addresses])
	binary.BigEndian.PutUint16(b[addresses:], tpid)
	binary.BigEndian.PutUint16(b[addresses+2:], tci)
	return b
}

// auxiliary returns the VLAN tag of the last frame received.
func (m *message) auxiliary() (tci, tpid uint16, tagged bool) {
	if m.header.Controllen < uint64(unix.CmsgLen(int(unsafe.Sizeof(unix.TpacketAuxdata{})))) {
		return 0, 0, false
	}
	c := (*unix.Cmsghdr)(unsafe.Pointer(&m.control))
	if c.Level != unix.SOL_PACKET || c.Type != unix.PACKET_AUXDATA {
		return 0, 0, false
	}
	aux := (*unix.TpacketAuxdata)(unsafe.Add(unsafe.Pointer(&m.control), unix.CmsgLen(0)))
	return aux.Vlan_tci, aux.Vlan_tpid, aux.Status&unix.TP_STATUS_VLAN_VALID != 0
}

// tagged8021Q reports whether a frame's outer tag is one of 802.1Q.
func tagged8021Q(f []byte) bool {
	return len(f) >= addresses+tagLength && binary.BigEndian.Uint16(f[addresses:]) == unix.ETH_P_8021Q
}
