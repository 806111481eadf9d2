package tap

import (
	"errors"
	"fmt"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Numbers of linux/io_uring.h, as far as they are used here.
const (
	opWritev        = 2
	opPollAdd       = 6
	opAsyncCancel   = 14
	opRead          = 22
	opWrite         = 23
	opReadMultishot = 49 // Linux 6.7

	sqeLink         = 1 << 2 // the next entry waits for this one, and is cancelled if it fails
	sqeBufferSelect = 1 << 5

	cqeBuffer    = 1 << 0 // a buffer was taken
	cqeMore      = 1 << 1 // more completions of the same entry follow
	cqeBufferBit = 16     // position of the buffer's number in the flags

	cancelAll = 1 << 0
	cancelAny = 1 << 2

	setupCQSize       = 1 << 3
	setupDisabled     = 1 << 6 // until the thread that will use it enables it
	setupSubmitAll    = 1 << 7
	setupSingleIssuer = 1 << 12
	setupDeferTaskrun = 1 << 13 // Linux 6.1

	enterGetEvents = 1 << 0
	enterExtArg    = 1 << 3

	registerEnable     = 12
	registerBufferRing = 22

	offsetRings   = 0
	offsetEntries = 0x10000000
)

// submission is struct io_uring_sqe, 64 bytes.
type submission struct {
	op       uint8
	flags    uint8
	priority uint16
	fd       int32
	offset   uint64
	address  uint64
	length   uint32
	opFlags  uint32
	data     uint64
	buffers  uint16
	_        [22]byte
}

// write asks for a parcel to be written, without waiting.
func (s *submission) write(fd int, p *parcel) {
	s.op, s.fd, s.opFlags = opWrite, int32(fd), unix.RWF_NOWAIT
	s.address, s.length = uint64(uintptr(unsafe.Pointer(p.parts[0].Base))), uint32(p.parts[0].Len)
	if len(p.parts) > 1 {
		s.op, s.address, s.length = opWritev, uint64(uintptr(unsafe.Pointer(&p.parts[0]))), uint32(len(p.parts))
	}
}

// completion is struct io_uring_cqe, 16 bytes.
type completion struct {
	data   uint64
	result int32
	flags  uint32
}

// setup is struct io_uring_params, 120 bytes, with the offsets of the parts of the mapping.
type setup struct {
	submissions, completions uint32
	flags                    uint32
	_                        [2]uint32
	features                 uint32
	_                        [4]uint32
	sq                       struct {
		head, tail, mask, entries, flags, dropped, array, _ uint32
		_                                                   uint64
	}
	cq struct {
		head, tail, mask, entries, overflow, completions, flags, _ uint32
		_                                                          uint64
	}
}

// waitArgument is struct io_uring_getevents_arg, 24 bytes.
type waitArgument struct {
	signals     uint64
	signalsSize uint32
	minimum     uint32
	timeout     uint64
}

// uring is an io_uring: a queue of submissions and one of completions, shared between the kernel and the
// thread that enables it. It knows nothing of what is moved.
type uring struct {
	fd             int
	disabled       bool
	rings, entries []byte // mappings
	call           func(submit, wait, flags, argument, size uintptr) unix.Errno

	sqHead   *uint32 // the kernel's: entries that it has taken
	sqTail   *uint32
	sqMask   uint32
	sqes     []submission
	tail     uint32 // entries that are filled in
	cqHead   *uint32
	cqTail   *uint32
	cqMask   uint32
	cqes     []completion
	untaken  []completion // of entries that the kernel did not take
	timeout  unix.Timespec
	argument waitArgument
}

// newUring makes a ring with room for that many submissions and completions, both powers of two. A kernel
// that can do so works on completions only while the thread is in enter.
func newUring(submissions, completions uint32) (*uring, error) {
	p := setup{completions: completions,
		flags: setupCQSize | setupDisabled | setupSubmitAll | setupSingleIssuer | setupDeferTaskrun}
	fd, _, errno := unix.Syscall(unix.SYS_IO_URING_SETUP, uintptr(submissions), uintptr(unsafe.Pointer(&p)), 0)
	if errno == unix.EINVAL {
		p = setup{completions: completions, flags: setupCQSize}
		fd, _, errno = unix.Syscall(unix.SYS_IO_URING_SETUP, uintptr(submissions), uintptr(unsafe.Pointer(&p)), 0)
	}
	if errno != 0 {
		return nil, fmt.Errorf("io_uring: %w", errno)
	}
	unix.CloseOnExec(int(fd))
	u := &uring{fd: int(fd), disabled: p.flags&setupDisabled != 0}
	u.call = u.kernel
	if err := u.mapRings(&p); err != nil {
		u.close()
		return nil, fmt.Errorf("io_uring: map its queues: %w", err)
	}
	return u, nil
}

// enable makes the ring the calling thread's.
func (u *uring) enable() error {
	if !u.disabled {
		return nil
	}
	_, _, errno := unix.Syscall6(unix.SYS_IO_URING_REGISTER, uintptr(u.fd), registerEnable, 0, 0, 0, 0)
	if errno != 0 {
		return fmt.Errorf("io_uring: enable: %w", errno)
	}
	return nil
}

func (u *uring) mapRings(p *setup) (err error) {
	size := max(p.sq.array+4*p.submissions, p.cq.completions+p.completions*uint32(unsafe.Sizeof(completion{})))
	const access, shared = unix.PROT_READ | unix.PROT_WRITE, unix.MAP_SHARED | unix.MAP_POPULATE
	if u.rings, err = unix.Mmap(u.fd, offsetRings, int(size), access, shared); err != nil {
		return err
	}
	bytes := int(p.submissions) * int(unsafe.Sizeof(submission{}))
	if u.entries, err = unix.Mmap(u.fd, offsetEntries, bytes, access, shared); err != nil {
		return err
	}
	word := func(offset uint32) *uint32 { return (*uint32)(unsafe.Pointer(&u.rings[offset])) }
	u.sqHead, u.sqTail, u.sqMask = word(p.sq.head), word(p.sq.tail), *word(p.sq.mask)
	u.cqHead, u.cqTail, u.cqMask = word(p.cq.head), word(p.cq.tail), *word(p.cq.mask)
	u.sqes = unsafe.Slice((*submission)(unsafe.Pointer(&u.entries[0])), p.submissions)
	u.cqes = unsafe.Slice((*completion)(unsafe.Pointer(&u.rings[p.cq.completions])), p.completions)
	for i := range p.submissions {
		*word(p.sq.array + 4*i) = i // entries are used in turn
	}
	u.argument.timeout = uint64(uintptr(unsafe.Pointer(&u.timeout)))
	return nil
}

// submit returns a cleared entry to fill in, which the next enter gives to the kernel. The caller makes sure
// that there is room.
func (u *uring) submit() *submission {
	s := &u.sqes[u.tail&u.sqMask]
	*s = submission{}
	u.tail++
	return s
}

// enter gives the entries to the kernel, lets it work on what is ready, and waits for that many completions,
// until the limit at the latest. It may return early.
//
// The kernel takes all entries or, if memory is short, only the first few. The others are taken back and
// answered with ECANCELED: in a later call they would no longer wait for the entries they are linked to.
func (u *uring) enter(wait int, limit time.Duration) error {
	atomic.StoreUint32(u.sqTail, u.tail)
	flags, argument, size := uintptr(enterGetEvents), uintptr(0), uintptr(0)
	if wait > 0 {
		flags |= enterExtArg
		u.timeout = unix.NsecToTimespec(int64(limit))
		argument, size = uintptr(unsafe.Pointer(&u.argument)), unsafe.Sizeof(u.argument)
	}
	switch errno := u.call(uintptr(u.tail-atomic.LoadUint32(u.sqHead)), uintptr(wait), flags, argument, size); errno {
	case 0, unix.EINTR, unix.ETIME, unix.EAGAIN, unix.EBUSY, unix.ENOMEM: // the last before a thread's first entry
	default:
		return fmt.Errorf("io_uring: %w", errno)
	}
	if taken := atomic.LoadUint32(u.sqHead); taken != u.tail {
		return u.takeBack(taken)
	}
	return nil
}

// kernel is the system call. It may sleep, and the garbage collector must not wait for that: hence no
// RawSyscall.
func (u *uring) kernel(submit, wait, flags, argument, size uintptr) unix.Errno {
	_, _, errno := unix.Syscall6(unix.SYS_IO_URING_ENTER, uintptr(u.fd), submit, wait, flags, argument, size)
	return errno
}

// takeBack cancels the entries from that one on, and gives the kernel a moment to free memory.
func (u *uring) takeBack(from uint32) error {
	if u.tail-from > uint32(len(u.sqes)) {
		return fmt.Errorf("io_uring: the kernel says that it took entry %d of %d", from, u.tail)
	}
	for i := from; i != u.tail; i++ {
		u.untaken = append(u.untaken, completion{data: u.sqes[i&u.sqMask].data, result: -int32(unix.ECANCELED)})
	}
	u.tail = from
	time.Sleep(firstPause)
	return nil
}

// take returns the next completion, if there is one.
func (u *uring) take() (completion, bool) {
	head := *u.cqHead // written by this thread only
	if head != atomic.LoadUint32(u.cqTail) {
		c := u.cqes[head&u.cqMask]
		atomic.StoreUint32(u.cqHead, head+1)
		return c, true
	}
	if len(u.untaken) > 0 {
		c := u.untaken[0]
		u.untaken = u.untaken[1:]
		return c, true
	}
	return completion{}, false
}

// bufferRegistration is struct io_uring_buf_reg, 40 bytes.
type bufferRegistration struct {
	address uint64
	entries uint32
	group   uint16
	flags   uint16
	_       [3]uint64
}

// registerBuffers gives the kernel a group's ring of buffers, in page-aligned memory.
func (u *uring) registerBuffers(group uint16, ring []buffer) error {
	r := bufferRegistration{address: uint64(uintptr(unsafe.Pointer(&ring[0]))), entries: uint32(len(ring)), group: group}
	_, _, errno := unix.Syscall6(unix.SYS_IO_URING_REGISTER, uintptr(u.fd), registerBufferRing, uintptr(unsafe.Pointer(&r)), 1, 0, 0)
	if errno != 0 {
		return fmt.Errorf("io_uring: register buffers: %w", errno)
	}
	return nil
}

func (u *uring) close() error {
	var all error
	for _, mapping := range [][]byte{u.rings, u.entries} {
		if mapping != nil {
			all = errors.Join(all, unix.Munmap(mapping))
		}
	}
	return errors.Join(all, unix.Close(u.fd))
}

// buffer is struct io_uring_buf, 16 bytes. The last field of a ring's first buffer is the ring's tail.
type buffer struct {
	address uint64
	length  uint32
	number  uint16
	tail    uint16
}
