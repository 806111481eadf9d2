// Package tap opens TAP and other interfaces and moves Ethernet frames between two of them.
//
// A Device is one interface. Open makes a TAP with one or more queues, which disappears with Close, or takes
// one that `ip tuntap add` made, which stays. The kernel's side may be moved into another network namespace
// at any time; the interface is then asked where it is. Attach joins an existing interface of any kind,
// beside the kernel, through a packet socket. Either way frames move between program and interface. To a TAP
// the program is the cable; to an attached interface it is like a network stack.
//
// A Direction is one way between a pair of queues: it reads batches from a queue of one Device into its own
// slots and writes them to the same queue of the other. A Worker has the directions that one goroutine
// drives, with one of the Engines. Frames are whole Ethernet frames without a packet-information or virtio
// header, as a wire would carry them; merged ones are cut when they come, and neighbours may be merged when
// they go (Merging, internal/segment). Otherwise the package does not look into frames.
package tap

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

var (
	// ErrGone says that the interface was deleted; every later call on it says so too.
	ErrGone = errors.New("interface is gone: somebody deleted it")
	// ErrStopped is what Next returns after Stop.
	ErrStopped = errors.New("worker was stopped")
)

// Config says which interface to open.
type Config struct {
	Name   string // 1 to 15 bytes; made if there is no such interface
	Queues int    // 0 means 1
	MTU    int    // in bytes, without the Ethernet header; 0 leaves it as it is
	Fresh  int    // MTU of a new interface if MTU is 0; 0 leaves that to the kernel

	Merging Merging // what is to pass merged, as far as the kernel supports it
}

// Device is an open interface. Its methods may be used from several goroutines.
type Device struct {
	name     string
	queues   []*os.File
	virtio   bool            // each frame begins with a virtio header
	merging  Merging         // what passes merged
	takesUDP bool            // the kernel accepts merged UDP
	outs     []*os.File      // for each queue, what writes to a packet socket's interface; nil for a TAP
	mutex    sync.Mutex      // guards polled, mapped, xdp and idle
	polled   []*os.File      // the queues that a goroutine waits on
	mapped   []inlet         // of a packet socket's queues; nil for one that has none
	xdp      *xdpSockets     // those last opened
	broken   bool            // the kernel has broken a packet ring
	idle     []holder        // engines whose threads may not have begun
	table    *os.File        // net/dev of the namespace where the interface was opened
	lost     []atomic.Uint64 // frames that a queue's packet socket had no buffer for; the kernel reports each only once
}

// Open makes the TAP, or takes an existing one as it is. It does not bring the interface up: see Up. The
// error is one sentence that says what to do.
func Open(c Config) (*Device, error) {
	if err := CheckName(c.Name); err != nil {
		return nil, err
	}
	for deadline := time.Now().Add(release); ; time.Sleep(release / 50) {
		d, err := open(c)
		if !errors.Is(err, unix.EBUSY) || time.Now().After(deadline) {
			return d, err
		}
	}
}

// release is how long Open waits for an interface in use: after a program with a ring was killed, the kernel
// takes a moment to release its interface.
const release = time.Second

// releaseXDP is the same for AF_XDP: of a socket that was closed the kernel lets go in the background, once
// nobody else is changing any interface (xp_release_deferred in net/xdp/xsk_buff_pool.c).
const releaseXDP = 5 * time.Second

func open(c Config) (*Device, error) {
	queues := max(c.Queues, 1)
	found, err := probe(c.Name)
	if err != nil {
		return nil, err
	}
	if found.exists && queues > 1 && !found.multi {
		return nil, fmt.Errorf("interface %s has one queue, not %d: make it with `ip tuntap add dev %s mode tap multi_queue`",
			c.Name, queues, c.Name)
	}
	d := &Device{name: c.Name, virtio: c.Merging != 0}
	for range queues {
		f, err := c.openQueue(&found)
		if err != nil {
			d.Close()
			return nil, explain(c.Name, err)
		}
		d.queues = append(d.queues, f)
	}
	mtu := c.MTU
	if mtu == 0 && !found.exists {
		mtu = c.Fresh
	}
	if err := errors.Join(d.offer(c.Merging), d.setMTU(mtu), d.openTable()); err != nil {
		d.Close()
		return nil, err
	}
	return d, nil
}

// pollable returns a file for a queue that a goroutine can wait on.
func (d *Device) pollable(queue int) (*os.File, error) {
	d.mutex.Lock()
	defer d.mutex.Unlock()
	if d.polled == nil {
		d.polled = make([]*os.File, len(d.queues))
	}
	if d.polled[queue] == nil {
		fd, err := duplicate(d.queues[queue])
		if err != nil {
			return nil, err
		}
		d.polled[queue] = os.NewFile(uintptr(fd), d.name)
	}
	return d.polled[queue], nil
}

// duplicate duplicates a file's descriptor, which then belongs to the caller.
func duplicate(f *os.File) (int, error) {
	fd := -1
	err := control(f, func(old int) (err error) {
		fd, err = unix.FcntlInt(uintptr(old), unix.F_DUPFD_CLOEXEC, 0)
		return err
	})
	return fd, err
}

// unpolled makes a file of a descriptor that the runtime's poller does not know, and whose calls do not
// wait.
func unpolled(fd int, name string) (*os.File, error) {
	if err := unix.SetNonblock(fd, false); err != nil { // or os.NewFile would register it with the poller
		unix.Close(fd)
		return nil, err
	}
	f := os.NewFile(uintptr(fd), name)
	return f, unix.SetNonblock(fd, true)
}

// Name returns the name the interface had when it was opened.
func (d *Device) Name() string { return d.name }

// Queues returns the number of queues.
func (d *Device) Queues() int { return len(d.queues) }

// attached reports whether the interface was attached, and so is not our TAP.
func (d *Device) attached() bool { return d.outs != nil }

// writer returns the file that takes a queue's frames.
func (d *Device) writer(queue int) *os.File {
	if d.attached() {
		return d.outs[queue]
	}
	return d.queues[queue]
}

// Inject writes one frame, from any goroutine, somewhere among the frames of the directions. It never
// waits: a frame that is refused, for the moment or for good, is not written and not in any Tally, and the
// error says why.
func (d *Device) Inject(frame []byte) error {
	err := control(d.writer(0), func(fd int) error {
		p := packer{virtio: d.virtio}
		_, err := p.pack([][]byte{frame})[0].write(fd)
		return err
	})
	if err != nil {
		return d.failed("write to", err)
	}
	return nil
}

// inlet is memory in which the kernel leaves the frames of one packet socket. It belongs to the device, and
// each engine that uses it holds it, so that the next engine finds the frames that are still in it.
type inlet interface {
	ready() bool            // reports whether there is a frame
	take() (arrival, error) // lends the next frame, which must be there
	giveBack()              // gives back what was lent
	hold()
	release() error // lets go; the last holder's call frees it
}

// inletOf returns a queue's inlet, held for the caller, and makes it if there is none.
func inletOf[T inlet](d *Device, queue int, open func(socket *os.File) (T, error)) (made T, err error) {
	d.mutex.Lock()
	defer d.mutex.Unlock()
	if d.mapped == nil {
		d.mapped = make([]inlet, len(d.queues))
	}
	if d.mapped[queue] == nil {
		if made, err = open(d.queues[queue]); err != nil {
			return made, err
		}
		d.mapped[queue] = made
	}
	made, ok := d.mapped[queue].(T)
	if !ok {
		return made, d.otherEngine()
	}
	made.hold()
	return made, nil
}

// otherEngine says why an engine cannot use an interface.
func (d *Device) otherEngine() error {
	return explained{fmt.Errorf("%s has another engine's ring, by which alone its frames come: attach it again", d.name)}
}

// ringOf returns a queue's packet ring, held for the caller. A new ring's slots have room for a frame and
// bytes after it.
func (d *Device) ringOf(queue, room, tail int) (*packetRing, error) {
	return inletOf(d, queue, func(socket *os.File) (*packetRing, error) {
		if d.broken {
			return nil, fmt.Errorf("%s gets frames merged in ways that a packet ring does not survive", d.name)
		}
		share := max(ringBytes/len(d.queues), leastRing)
		return newPacketRing(socket, share, room, tail)
	})
}

// xdpOf returns the AF_XDP socket by which a queue receives and sends, held for the caller.
func (d *Device) xdpOf(queue, room int) (*xdpSocket, error) {
	return inletOf(d, queue, func(*os.File) (*xdpSocket, error) { return d.sharedXDP(queue, room, true) })
}

// directOf returns the AF_XDP socket by which a queue sends alone, held for the caller.
func (d *Device) directOf(queue, room int) (*xdpSocket, error) {
	d.mutex.Lock()
	defer d.mutex.Unlock()
	return d.sharedXDP(queue, room, false)
}

// sharedXDP returns a queue's AF_XDP socket, held for the caller. If nobody holds one, it opens those of all
// queues, with chunks that have room for a frame.
func (d *Device) sharedXDP(queue, room int, receives bool) (*xdpSocket, error) {
	switch {
	case d.xdp == nil || !d.xdp.again():
		x, err := d.openXDP(room, receives)
		if err != nil {
			return nil, err
		}
		d.xdp = x
	case receives != (d.xdp.redirect != nil):
		return nil, errors.Join(d.otherEngine(), d.xdp.release())
	}
	return d.xdp.queues[queue], nil
}

// openXDP opens AF_XDP sockets for all queues.
func (d *Device) openXDP(room int, receives bool) (x *xdpSockets, err error) {
	inside := control(d.queues[0], func(fd int) error {
		return inNamespace(fd, unix.SIOCGSKNS, func() error {
			for deadline := time.Now().Add(releaseXDP); ; time.Sleep(release / 50) {
				x, err = newXDPSockets(d.queues[0], room, len(d.queues), receives)
				if !errors.Is(err, unix.EBUSY) || time.Now().After(deadline) {
					return nil
				}
			}
		})
	})
	return x, errors.Join(err, inside)
}

// unring makes a packet socket receive without its ring, once the last holder has released that.
func (d *Device) unring(queue int) error {
	d.mutex.Lock()
	defer d.mutex.Unlock()
	if r := d.mapped[queue]; r != nil {
		if err := r.release(); err != nil {
			return err
		}
	}
	d.mapped[queue], d.broken = nil, true
	return control(d.queues[queue], func(fd int) error {
		return unix.SetsockoptTpacketReq(fd, unix.SOL_PACKET, unix.PACKET_RX_RING, &unix.TpacketReq{})
	})
}

func (d *Device) hasRing(queue int) bool {
	d.mutex.Lock()
	defer d.mutex.Unlock()
	return d.mapped != nil && d.mapped[queue] != nil
}

// holder is an engine that holds descriptors and memory from the start.
type holder interface {
	begun() bool // reports whether its thread has begun, or it has ended
	release()    // ends it if not
}

// holds notes an engine, so that Close can end it.
func (d *Device) holds(h holder) {
	d.mutex.Lock()
	defer d.mutex.Unlock()
	d.idle = append(slices.DeleteFunc(d.idle, holder.begun), h)
}

// Close releases the interface and unblocks every reader, a ring within a second. An interface that Open
// made disappears, with the last ring that reads it; any other stays.
func (d *Device) Close() error {
	d.mutex.Lock()
	defer d.mutex.Unlock()
	for _, h := range d.idle {
		h.release()
	}
	d.withdraw()
	var all error
	for i, r := range d.mapped {
		if r != nil {
			all = errors.Join(all, r.release())
			d.mapped[i] = nil
		}
	}
	for _, f := range slices.Concat(d.queues, d.polled, d.outs, []*os.File{d.table}) {
		if f != nil {
			all = errors.Join(all, f.Close())
		}
	}
	return all
}

// gone wraps ErrGone with the interface's name. To a packet socket an interface that left the namespace is
// gone.
func (d *Device) gone() error {
	if d.attached() {
		return fmt.Errorf("%s: %w, or moved it into another network namespace, where it can be attached", d.name, ErrGone)
	}
	return fmt.Errorf("%s: %w", d.name, ErrGone)
}

// CheckName checks that the kernel accepts a name for an interface. The error is one sentence that says what
// to do.
func CheckName(name string) error {
	switch {
	case name == "" || name == "." || name == "..":
		return fmt.Errorf("interface name %q: give 1 to %d characters", name, unix.IFNAMSIZ-1)
	case len(name) >= unix.IFNAMSIZ:
		return fmt.Errorf("interface name %q is %d bytes long, the kernel takes %d: shorten it", name, len(name), unix.IFNAMSIZ-1)
	case strings.ContainsAny(name, "/:% \t\n\v\f\r"):
		return fmt.Errorf("interface name %q: leave out slashes, colons, percent signs and spaces", name)
	}
	return nil
}

// control runs f on the file's descriptor without waiting for readiness.
func control(f *os.File, do func(fd int) error) error {
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var inner error
	if err := raw.Control(func(fd uintptr) { inner = do(int(fd)) }); err != nil {
		return os.ErrClosed
	}
	return inner
}
