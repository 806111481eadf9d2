package tap

import (
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// Drops are the kernel's own drop counters, in frames, named from the kernel's side of a TAP: Tx counts
// frames that it wanted to hand to the program while the queue was full, Rx those that the program wrote
// and the kernel had no use for. On an attached interface Tx counts the frames that the packet socket
// has had no buffer for since Attach, and Rx those that the interface has failed to send since it was
// made.
type Drops struct {
	Rx uint64 `json:"rx"`
	Tx uint64 `json:"tx"`
}

// Drops reads the kernel's drop counters, in whichever namespace the interface is now.
func (d *Device) Drops() (Drops, error) {
	got, err := d.interfaceDrops()
	if err != nil || !d.attached() {
		return got, err
	}
	got = Drops{Rx: got.Tx}
	if err := d.accountXDP(); err != nil {
		return got, err
	}
	for queue := range d.queues {
		lost, err := d.ringDrops(queue)
		if err != nil {
			return got, fmt.Errorf("drop counter of the packet socket on %s: %w", d.name, err)
		}
		got.Tx += lost
	}
	return got, nil
}

// accountXDP takes over what AF_XDP has lost.
func (d *Device) accountXDP() error {
	d.mutex.Lock()
	x := d.xdp
	if x == nil || x.redirect == nil || !x.again() {
		x = nil
	}
	d.mutex.Unlock()
	if x == nil {
		return nil
	}
	lost, err := x.account()
	d.lost[0].Add(lost)
	return errors.Join(err, x.release())
}

// ringDrops returns how many frames a queue's packet socket has had no room for. Asking resets the
// kernel's own counter.
func (d *Device) ringDrops(queue int) (uint64, error) {
	err := control(d.queues[queue], func(fd int) error {
		s, err := unix.GetsockoptTpacketStats(fd, unix.SOL_PACKET, unix.PACKET_STATISTICS)
		if err == nil {
			d.lost[queue].Add(uint64(s.Drops))
		}
		return err
	})
	return d.lost[queue].Load(), err
}

// openTable opens the kernel's counters in the current namespace, so that they can be read later without
// the privilege to enter it again.
func (d *Device) openTable() (err error) {
	if d.table, err = os.Open(deviceTable); errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("counters of %s: mount /proc (%w)", d.name, err)
	}
	if err != nil {
		return fmt.Errorf("counters of %s: %w", d.name, err)
	}
	return nil
}

const deviceTable = "/proc/thread-self/net/dev"

// interfaceDrops looks for the interface first where it was opened, then where it is now.
func (d *Device) interfaceDrops() (Drops, error) {
	var got Drops
	err := control(d.queues[0], func(fd int) error {
		ifr, err := d.nameNow(fd)
		if err != nil {
			return err
		}
		table, err := io.ReadAll(io.NewSectionReader(d.table, 0, math.MaxInt64))
		if err != nil {
			return err
		}
		got, err = findDrops(string(table), ifr.Name())
		return err
	})
	if err == nil {
		return got, nil
	}
	err = d.where(func(ifr *unix.Ifreq) error {
		table, err := os.ReadFile(deviceTable)
		if err != nil {
			return err
		}
		got, err = findDrops(string(table), ifr.Name())
		return err
	})
	return got, err
}

// findDrops picks an interface's line out of net/dev: after the name eight receive and eight
// transmit counters, the drops fourth of each.
func findDrops(table, name string) (Drops, error) {
	for line := range strings.Lines(table) {
		who, counters, _ := strings.Cut(strings.TrimSpace(line), ":")
		if who != name {
			continue
		}
		var rx, tx [8]uint64
		_, err := fmt.Sscan(counters, &rx[0], &rx[1], &rx[2], &rx[3], &rx[4], &rx[5], &rx[6], &rx[7],
			&tx[0], &tx[1], &tx[2], &tx[3])
		return Drops{Rx: rx[3], Tx: tx[3]}, err
	}
	return Drops{}, errElsewhere
}

var errElsewhere = errors.New("is in another network namespace, where this process cannot read its counters")

// Up brings the interface up, in whichever namespace it is now. If it is up already it is left alone, so
// that an unprivileged user can use what root has prepared.
func (d *Device) Up() error {
	return d.where(func(ifr *unix.Ifreq) error {
		if err := interfaceIoctl(unix.SIOCGIFFLAGS, ifr); err != nil || ifr.Uint16()&unix.IFF_UP != 0 {
			return err
		}
		ifr.SetUint16(ifr.Uint16() | unix.IFF_UP)
		return interfaceIoctl(unix.SIOCSIFFLAGS, ifr)
	})
}

func (d *Device) setMTU(mtu int) error {
	if mtu == 0 {
		return nil
	}
	err := d.where(func(ifr *unix.Ifreq) error {
		if err := interfaceIoctl(unix.SIOCGIFMTU, ifr); err != nil || ifr.Uint32() == uint32(mtu) {
			return err
		}
		ifr.SetUint32(uint32(mtu))
		return interfaceIoctl(unix.SIOCSIFMTU, ifr)
	})
	if errors.Is(err, unix.EINVAL) {
		return fmt.Errorf("interface %s: the kernel refuses an MTU of %d: give 68 to 65521", d.name, mtu)
	}
	return err
}

// where runs do on a thread in the interface's namespace, with a request that carries the interface's
// present name.
func (d *Device) where(do func(ifr *unix.Ifreq) error) error {
	err := control(d.queues[0], func(fd int) error {
		ifr, err := d.nameNow(fd)
		if err != nil {
			return err
		}
		again, err := unix.NewIfreq(ifr.Name())
		if err != nil {
			return err
		}
		ask := uint(unix.TUNGETDEVNETNS)
		if d.attached() {
			ask = unix.SIOCGSKNS
		}
		return inNamespace(fd, ask, func() error { return do(again) })
	})
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.EBADFD), errors.Is(err, unix.ENODEV):
		return d.gone()
	case errors.Is(err, unix.EPERM):
		return explain(d.name, err)
	case errors.Is(err, errElsewhere):
		return fmt.Errorf("%s %w", d.name, err)
	}
	return fmt.Errorf("interface %s: %w", d.name, err)
}

// nameNow returns a request that carries the interface's present name.
func (d *Device) nameNow(fd int) (*unix.Ifreq, error) {
	ifr, err := unix.NewIfreq("")
	if err != nil {
		return nil, err
	}
	if !d.attached() {
		return ifr, unix.IoctlIfreq(fd, unix.TUNGETIFF, ifr)
	}
	index, err := boundIndex(fd)
	if err != nil {
		return nil, err
	}
	ifr.SetUint32(uint32(index))
	return ifr, unix.IoctlIfreq(fd, unix.SIOCGIFNAME, ifr)
}

// inNamespace runs do in the namespace of the interface behind fd, which the ioctl ask opens. Entering
// another namespace needs privileges, so it is skipped if the interface never moved, or if the kernel
// does not say where it is.
func inNamespace(fd int, ask uint, do func() error) error {
	theirs, err := unix.IoctlRetInt(fd, ask)
	if errors.Is(err, unix.EBADFD) {
		return err
	}
	if err != nil {
		return do()
	}
	defer unix.Close(theirs)

	runtime.LockOSThread()
	ours, err := unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		runtime.UnlockOSThread()
		return err
	}
	defer unix.Close(ours)
	if sameFile(ours, theirs) {
		runtime.UnlockOSThread()
		return do()
	}
	if err := unix.Setns(theirs, unix.CLONE_NEWNET); err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("enter its network namespace: %w", err)
	}
	err = do()
	if back := unix.Setns(ours, unix.CLONE_NEWNET); back != nil {
		return errors.Join(err, fmt.Errorf("leave its network namespace: %w", back)) // the thread stays locked: it is no longer fit for others
	}
	runtime.UnlockOSThread()
	return err
}

func sameFile(a, b int) bool {
	var s, t unix.Stat_t
	return unix.Fstat(a, &s) == nil && unix.Fstat(b, &t) == nil && s.Dev == t.Dev && s.Ino == t.Ino
}

// present reports whether the current namespace has the interface.
func present(ifr unix.Ifreq) (bool, error) {
	err := interfaceIoctl(unix.SIOCGIFFLAGS, &ifr)
	if errors.Is(err, unix.ENODEV) {
		return false, nil
	}
	return true, err
}

// interfaceIoctl asks the current namespace about the interface that ifr names. Any socket will do;
// every service may open one of this family.
func interfaceIoctl(request uint, ifr *unix.Ifreq) error {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return unix.IoctlIfreq(fd, request, ifr)
}
