package tap

import (
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// Copy receives copies of the frames that reach an interface for this machine, as a wire
// has them. It changes nothing: it does not make the interface promiscuous, writes nothing
// and delays nothing. It is unsafe for concurrent use.
type Copy struct {
	file    *os.File
	fd      int
	message *message
	slot    []byte
}

// copyRoom is how many bytes of a frame are received.
const copyRoom = 1<<16 + 64

// OpenCopy begins to receive copies on an interface of the current namespace. It needs
// CAP_NET_RAW.
func OpenCopy(name string) (*Copy, error) {
	if err := CheckName(name); err != nil {
		return nil, err
	}
	index, err := indexOf(name)
	if err != nil {
		return nil, fmt.Errorf("interface %s is not there: look in which namespace it is (%w)", name, err)
	}
	in, err := packetSocket(name, index, unix.ETH_P_ALL, func(fd, _ int) error { return errors.Join(hear(fd), onlyForUs(fd)) })
	if err != nil {
		return nil, err
	}
	return &Copy{file: in, fd: int(in.Fd()), message: newMessage(true), slot: make([]byte, head+copyRoom)}, nil
}

// onlyForUs leaves out frames to others, which come if somebody else has made the
// interface promiscuous, and frames that this machine sends.
func onlyForUs(fd int) error {
	program, err := bpf.Assemble([]bpf.Instruction{
		bpf.LoadExtension{Num: bpf.ExtType},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: unix.PACKET_HOST, SkipFalse: 1},
		bpf.RetConstant{Val: 1 << 18},
		bpf.RetConstant{Val: 0},
	})
	if err != nil {
		return err
	}
	filter := make([]unix.SockFilter, len(program))
	for i, p := range program {
		filter[i] = unix.SockFilter{Code: p.Op, Jt: p.Jt, Jf: p.Jf, K: p.K}
	}
	return unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]})
}

// Next returns the next frame, which is good until the next call; nil where none has come. Where memory is
// short it tries again for a second.
func (c *Copy) Next() ([]byte, error) {
	for began := time.Now(); ; {
		frame, err := c.message.receive(c.fd, c.slot)
		switch {
		case err == nil:
			return frame, nil
		case errors.Is(err, unix.EAGAIN):
			return nil, nil
		case refused(err) && time.Since(began) < heartbeat:
			time.Sleep(longestPause)
		case errors.Is(err, errUncut), errors.Is(err, unix.EMSGSIZE), errors.Is(err, unix.EINTR):
		case errors.Is(err, unix.ENETDOWN): // reported once; the interface may come up again
		default:
			return nil, fmt.Errorf("copies of what comes to %s: %w", c.file.Name(), err)
		}
	}
}

// Wait waits for a frame, at most that long. The error of a deleted interface wraps
// ErrGone.
func (c *Copy) Wait(most time.Duration) error {
	if _, err := boundIndex(c.fd); err != nil {
		return fmt.Errorf("%s: %w", c.file.Name(), ErrGone)
	}
	_, err := unix.Poll([]unix.PollFd{{Fd: int32(c.fd), Events: unix.POLLIN}}, int(most.Milliseconds()))
	switch {
	case err == nil, err == unix.EINTR:
	case refused(err): // memory is short
		time.Sleep(longestPause)
	default:
		return fmt.Errorf("wait for %s: %w", c.file.Name(), err)
	}
	return nil
}

// Lost returns how many frames there was no room for since the last call.
func (c *Copy) Lost() (uint64, error) {
	s, err := unix.GetsockoptTpacketStats(c.fd, unix.SOL_PACKET, unix.PACKET_STATISTICS)
	if err != nil {
		return 0, err
	}
	return uint64(s.Drops), nil
}

// Close stops receiving.
func (c *Copy) Close() error { return c.file.Close() }
