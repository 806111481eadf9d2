package mirror

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// socket is a netlink socket that hears of all changes to SAs.
type socket struct {
	file   *os.File
	raw    syscall.RawConn
	number uint32 // its port
	woken  atomic.Bool
	buffer []byte
}

const (
	receiveBuffer = 8 << 20 // bytes of news that may wait; some 10,000 SAs
	longest       = 1 << 18 // of a datagram; dumps come in pieces of 32 KiB
)

// allNews are the groups that a mirror needs, as bits.
const allNews = 1<<(nl.XFRMNLGRP_EXPIRE-1) | 1<<(nl.XFRMNLGRP_SA-1) | 1<<(nl.XFRMNLGRP_MIGRATE-1)

// open opens a socket in the current namespace that hears of some groups' news.
func open(groups uint32) (*socket, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_XFRM)
	if errors.Is(err, unix.EPROTONOSUPPORT) {
		return nil, fmt.Errorf("mirror: this kernel has no IPsec to follow, or not its module xfrm_user: modprobe xfrm_user (%w)", err)
	}
	if err != nil {
		return nil, fmt.Errorf("mirror: %w", err)
	}
	s := &socket{file: os.NewFile(uintptr(fd), "netlink"), buffer: make([]byte, longest)}
	if err := s.prepare(fd, groups); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

func (s *socket) prepare(fd int, groups uint32) (err error) {
	if unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, receiveBuffer) != nil {
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, receiveBuffer) // as much as is granted
	}
	switch err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: groups}); {
	case errors.Is(err, unix.EPERM):
		return fmt.Errorf("mirror: following the kernel's SAs needs CAP_NET_ADMIN: run as root (%w)", err)
	case err != nil:
		return fmt.Errorf("mirror: %w", err)
	}
	name, err := unix.Getsockname(fd)
	if err != nil {
		return fmt.Errorf("mirror: %w", err)
	}
	s.number = name.(*unix.SockaddrNetlink).Pid
	s.raw, err = s.file.SyscallConn()
	return err
}

func (s *socket) port() uint32 { return s.number }

// receive gives the next datagram from the kernel; those of other processes are not for
// us.
func (s *socket) receive(wait time.Duration) ([]byte, error) {
	deadline := time.Time{}
	if wait > 0 {
		deadline = time.Now().Add(wait)
	}
	if err := s.file.SetReadDeadline(deadline); err != nil {
		return nil, err
	}
	if s.woken.Swap(false) { // woken before the deadline was set
		return nil, errAsked
	}
	var n int
	var from unix.Sockaddr
	var err error
	do := func(fd uintptr) bool {
		n, from, err = unix.Recvfrom(int(fd), s.buffer, unix.MSG_DONTWAIT)
		return !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EINTR) || wait == 0
	}
	if failed := s.raw.Read(do); errors.Is(failed, os.ErrDeadlineExceeded) && s.woken.Swap(false) {
		return nil, errAsked
	} else if errors.Is(failed, os.ErrDeadlineExceeded) {
		return nil, errNone
	} else if failed != nil {
		return nil, failed
	}
	switch sender, _ := from.(*unix.SockaddrNetlink); {
	case errors.Is(err, unix.EAGAIN), errors.Is(err, unix.EINTR):
		return nil, errNone
	case err != nil:
		return nil, err
	case sender == nil || sender.Pid != 0:
		return nil, nil
	}
	return s.buffer[:n], nil
}

func (s *socket) wake() {
	s.woken.Store(true)
	_ = s.file.SetReadDeadline(time.Unix(1, 0)) // fails only once closed
}

// ask sends XFRM_MSG_GETSA for all states, which is struct nlmsghdr alone.
func (s *socket) ask(request uint32) error {
	b := make([]byte, headerLen)
	binary.NativeEndian.PutUint32(b, uint32(len(b)))
	binary.NativeEndian.PutUint16(b[4:], nl.XFRM_MSG_GETSA)
	binary.NativeEndian.PutUint16(b[6:], unix.NLM_F_REQUEST|unix.NLM_F_DUMP)
	binary.NativeEndian.PutUint32(b[8:], request)
	var failed error
	err := s.raw.Control(func(fd uintptr) {
		failed = unix.Sendto(int(fd), b, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
	})
	return errors.Join(err, failed)
}

func (s *socket) Close() error { return s.file.Close() }
