package tap

import (
	"errors"
	"fmt"
	"os"
	"syscall"

	"github.com/songgao/water"
	"golang.org/x/sys/unix"
)

// Only this file knows water, the library that opens a TAP's queues, and works round it:
//
//   - It sets an interface's persistence even if it only attaches to it, and does not try the other queue
//     mode. So probe asks first.
//   - It opens without close-on-exec, so the fork lock is held during that. If the kernel then
//     refuses a new interface, that descriptor stays open until the program ends: nobody else knows its number.
//   - Its file belongs to the runtime's poller, which every frame would wake, even those that a ring reads.
//     So an unpolled file replaces it.

const controlFile = "/dev/net/tun"

// existing is what probe learnt about an interface.
type existing struct {
	exists bool // and is a persistent TAP
	multi  bool // made for several queues
}

// probe looks at the interface before water touches it:
//
//  1. open the control file, to tell its errors from the interface's;
//  2. stop if there is no interface of that name;
//  3. attach as a TAP with one queue, else with several: the kernel refuses the wrong one;
//  4. ask for its flags. An interface that is not persistent belongs to the program that holds it.
func probe(name string) (existing, error) {
	fd, err := unix.Open(controlFile, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return existing{}, explainControl(err)
	}
	defer unix.Close(fd)
	ifr, err := unix.NewIfreq(name)
	if err != nil {
		return existing{}, fmt.Errorf("interface name %q: %w", name, err)
	}
	if there, err := present(*ifr); err != nil {
		return existing{}, fmt.Errorf("look for interface %s: %w", name, err)
	} else if !there {
		return existing{}, nil
	}
	err = attach(fd, ifr, 0)
	if errors.Is(err, unix.EINVAL) {
		err = attach(fd, ifr, unix.IFF_MULTI_QUEUE)
	}
	if err != nil {
		return existing{}, explain(name, err)
	}
	if err := unix.IoctlIfreq(fd, unix.TUNGETIFF, ifr); err != nil {
		return existing{}, explain(name, err)
	}
	if ifr.Uint16()&unix.IFF_PERSIST == 0 {
		return existing{}, explain(name, unix.EBUSY)
	}
	return existing{exists: true, multi: ifr.Uint16()&unix.IFF_MULTI_QUEUE != 0}, nil
}

func attach(fd int, ifr *unix.Ifreq, flags uint16) error {
	ifr.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI | flags)
	return unix.IoctlIfreq(fd, unix.TUNSETIFF, ifr)
}

// openQueue attaches one more descriptor.
func (c *Config) openQueue(found *existing) (*os.File, error) {
	multi := found.multi || c.Queues > 1
	if c.Merging != 0 { // which water does not know
		return openMerging(c.Name, multi)
	}
	return openWater(c.Name, found.exists, multi)
}

func openWater(name string, persist, multi bool) (*os.File, error) {
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	w, err := water.New(water.Config{
		DeviceType:             water.TAP,
		PlatformSpecificParams: water.PlatformSpecificParams{Name: name, Persist: persist, MultiQueue: multi},
	})
	if err != nil {
		return nil, err
	}
	f, ok := w.ReadWriteCloser.(*os.File)
	if !ok {
		w.Close()
		return nil, errors.New("the TAP library hands out no file")
	}
	defer f.Close()
	fd, err := duplicate(f)
	if err != nil {
		return nil, err
	}
	return unpolled(fd, name)
}
