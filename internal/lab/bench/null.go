package bench

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync/atomic"

	"github.com/songgao/water"
	"golang.org/x/sys/unix"

	"tapsec/internal/lab/rig"
	"tapsec/internal/netns"
)

// offPage is how far after a page's start a buffer begins. At the start itself, copying a frame of 9000 octets
// takes 1.5 times as long.
const offPage = 256

// openNull does what TUN and TAP programs do.
func (f *forwarder) openNull(p plan) error {
	wire, err := f.openFile(f.wire, p.mtu)
	if err != nil {
		return err
	}
	host, err := f.openFile(f.host, p.mtu)
	if err != nil {
		return errors.Join(err, wire.Close())
	}
	ended := make(chan error, 1)
	go func() {
		buf := make([]byte, offPage+p.mtu+linkHeader)[offPage:]
		for {
			n, err := wire.Read(buf)
			if err != nil {
				ended <- nil // closed
				return
			}
			f.meters[0].tick(1)
			if _, err := host.Write(buf[:n]); err != nil {
				ended <- fmt.Errorf("%s: %w", f.variant, err)
				return
			}
		}
	}()
	f.closers = append(f.closers, func() error { return errors.Join(wire.Close(), <-ended) })
	return nil
}

// openBlocking is openNull without Go's poller: as in a C program, its thread sleeps in the kernel.
func (f *forwarder) openBlocking(p plan) error {
	from, err := f.openBare(f.wire, p.mtu)
	if err != nil {
		return err
	}
	to, err := f.openBare(f.host, p.mtu)
	if err != nil {
		return err
	}
	f.forward(p, from, to)
	return nil
}

// forward moves frames by two calls each, on a thread of its own, until the forwarder is closed.
func (f *forwarder) forward(p plan, from, to int) {
	var closing atomic.Bool
	ended := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		buf := make([]byte, p.mtu+linkHeader)
		for {
			n, err := unix.Read(from, buf)
			if closing.Load() {
				ended <- nil
				return
			}
			f.meters[0].tick(1)
			if err == nil {
				_, err = unix.Write(to, buf[:n])
			}
			if err != nil {
				ended <- fmt.Errorf("%s: %w", f.variant, err)
				return
			}
		}
	}()
	f.closers = append(f.closers, func() error {
		closing.Store(true)
		return errors.Join(f.wake(), <-ended)
	})
}

// openBare opens a descriptor that the poller does not know.
func (f *forwarder) openBare(name string, mtu int) (int, error) {
	w, err := water.New(water.Config{DeviceType: water.TAP, PlatformSpecificParams: water.PlatformSpecificParams{Name: name}})
	if err != nil {
		return -1, fmt.Errorf("interface %s: %w", name, err)
	}
	fd, err := unix.FcntlInt(w.ReadWriteCloser.(*os.File).Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err = errors.Join(err, w.Close()); err != nil {
		return -1, fmt.Errorf("interface %s: %w", name, err)
	}
	f.closers = append(f.closers, func() error { return unix.Close(fd) })
	return fd, errors.Join(unix.SetNonblock(fd, false), netns.SetMTU(name, mtu))
}

// wake sends a frame that nobody looks at.
func (f *forwarder) wake() error {
	s, err := rig.OpenSocket(f.enter)
	if err != nil {
		return err
	}
	return errors.Join(s.Send(make([]byte, 60)), s.Close())
}

func (f *forwarder) openFile(name string, mtu int) (*water.Interface, error) {
	w, err := water.New(water.Config{DeviceType: water.TAP, PlatformSpecificParams: water.PlatformSpecificParams{Name: name}})
	if err != nil {
		return nil, fmt.Errorf("interface %s: %w", name, err)
	}
	if name == f.host { // the other one is closed to wake its reader
		f.closers = append(f.closers, w.Close)
	}
	return w, netns.SetMTU(name, mtu)
}
