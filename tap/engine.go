package tap

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Engine is how frames are moved. Its text is auto, ring, plain, direct or xdp.
type Engine uint8

const (
	Auto   Engine = iota // Ring if it works, else Plain
	Ring                 // io_uring: one call for all frames that are to be read and written
	Plain                // a call for each frame read and each written
	Direct               // as Auto, but AF_XDP to attached interfaces, past their queueing disciplines
	XDP                  // AF_XDP for attached interfaces, which takes their frames away from the machine's own stack; as Auto for TAPs
)

var engineNames = []string{Auto: "auto", Ring: "ring", Plain: "plain", Direct: "direct", XDP: "xdp"}

func (e Engine) String() string { return nameOf(engineNames, e) }

// MarshalText returns the engine's name.
func (e Engine) MarshalText() ([]byte, error) { return []byte(e.String()), nil }

// UnmarshalText takes the engine's name.
func (e *Engine) UnmarshalText(text []byte) error { return named(e, engineNames, text) }

// nameOf is the text of one of the values that a user may choose from.
func nameOf[T ~uint8](names []string, value T) string {
	if int(value) < len(names) {
		return names[value]
	}
	return fmt.Sprintf("%T(%d)", value, uint8(value))
}

// named is the reverse of nameOf; the error says what the text should have named.
func named[T ~uint8](value *T, names []string, text []byte) error {
	i := slices.Index(names, string(text))
	if i < 0 {
		last := len(names) - 1
		return fmt.Errorf("expected %s or %s, found %q", strings.Join(names[:last], ", "), names[last], text)
	}
	*value = T(i)
	return nil
}

// Probe returns the engine that Auto stands for here, Ring or Plain, and a sentence that says why. It
// really moves a frame, since in some containers a ring can be made but reads nothing. It tries only once.
// Worker.Engine tells how a NIC moves its frames in the end.
func Probe() (Engine, string) {
	p := probeOnce()
	return p.engine, p.why
}

type probed struct {
	engine Engine
	single bool
	why    string
	err    error // why the ring does not work
}

var probeOnce = sync.OnceValue(func() probed {
	where, err := tryRing(false)
	if err == nil {
		return probed{engine: Ring, why: "io_uring moved a frame through " + where}
	}
	if _, again := tryRing(true); again == nil {
		return probed{engine: Ring, single: true,
			why: fmt.Sprintf("io_uring moved a frame through %s, with single reads (%v)", where, err)}
	}
	return probed{engine: Plain, why: fmt.Sprintf("io_uring does not move frames here: %v", err), err: err}
})

// settle replaces Auto by what Probe found, and refuses a ring that does not work.
func (o Options) settle() (_ Options, why string, err error) {
	if o.asked = o.Engine; o.Engine == Plain {
		return o, "asked for", nil
	}
	p := probeOnce()
	if o.Engine == Ring && p.engine != Ring {
		return o, "", fmt.Errorf("engine ring: %s: %s, or choose plain", p.why, advice(p.err))
	}
	if why = p.why; o.Engine == Ring {
		why = "asked for"
	}
	o.Engine, o.SingleReads = p.engine, o.SingleReads || p.single
	return o, why, nil
}

// patienceOfProbe bounds how long Probe waits for its frame. It is long, for busy machines, and only
// matters if the frame never comes.
const patienceOfProbe = 5 * time.Second

// tryRing moves a frame with a ring: through a TAP in a network namespace of its own or, if none may be
// made, through a pair of sockets.
func tryRing(single bool) (where string, err error) {
	type result struct {
		where string
		err   error
	}
	done := make(chan result, 1)
	go onOwnThread(func() {
		tap, kernel, err := ownTAP()
		if err != nil {
			done <- result{"a pair of sockets, since no TAP may be made", tryPair(single)}
			return
		}
		defer tap.Close()
		defer kernel.Close()
		far, err := kernel.pollable(0)
		if err == nil {
			err = tryMoving(tap, far, single)
		}
		done <- result{"a TAP of its own", err}
	})
	select {
	case r := <-done:
		return r.where, r.err
	case <-time.After(2*patienceOfProbe + time.Second):
		return "", errors.New("the frame did not come in time")
	}
}

// onOwnThread runs do on a thread that ends with it, so that do may change the thread. It avoids the
// process's first thread, which cannot end and is what /proc/self shows.
func onOwnThread(do func()) {
	runtime.LockOSThread() // never unlocked, so that the thread ends with its goroutine
	if unix.Gettid() != unix.Getpid() {
		do()
		return
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		onOwnThread(do)
	}()
	<-done
	runtime.UnlockOSThread()
}

// probeFrame is a broadcast from nobody, with an EtherType reserved for experiments.
var probeFrame = append([]byte("\xff\xff\xff\xff\xff\xff\x02\x00\x00\x00\x00\x01\x88\xb5 tapsec looks whether this moves"), make([]byte, 64)...)

// ownTAP makes a TAP in a network namespace that ends with the thread, and sends the probe's frame out of
// it.
func ownTAP() (tap, kernel *Device, err error) {
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return nil, nil, err
	}
	if tap, err = Open(Config{Name: "probe"}); err != nil {
		return nil, nil, err
	}
	if err = tap.Up(); err == nil {
		kernel, err = Attach("probe")
	}
	if err != nil {
		return nil, nil, errors.Join(err, tap.Close())
	}
	if err := kernel.Inject(probeFrame); err != nil {
		return nil, nil, errors.Join(err, tap.Close(), kernel.Close())
	}
	return tap, kernel, nil
}

// tryPair uses sockets instead of a TAP.
func tryPair(single bool) error {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	d := &Device{name: "pair", queues: []*os.File{os.NewFile(uintptr(fds[0]), "pair")}}
	defer d.Close()
	far := os.NewFile(uintptr(fds[1]), "pair")
	defer far.Close()
	if _, err := far.Write(probeFrame); err != nil {
		return err
	}
	return tryMoving(d, far, single)
}

// tryMoving writes back what comes to d until the probe's frame has come, and checks that the far end
// receives it.
func tryMoving(d *Device, far *os.File, single bool) error {
	direction := newDirection(d, d, 0, Options{Room: len(probeFrame)})
	r, err := newRing([]*Direction{direction}, Options{SingleReads: single})
	if err != nil {
		return err
	}
	worker := newWorker(r, direction)
	defer time.AfterFunc(patienceOfProbe, worker.Stop).Stop()
	for {
		_, frames, err := worker.Next()
		if errors.Is(err, ErrStopped) {
			break
		}
		if err == nil {
			err = direction.Send(frames)
		}
		if err != nil {
			return err
		}
		for _, f := range frames {
			if bytes.Equal(f, probeFrame) {
				worker.Stop()
			}
		}
	}
	if err := far.SetReadDeadline(time.Now().Add(patienceOfProbe)); err != nil {
		return err
	}
	for got := make([]byte, 256); ; {
		n, err := far.Read(got)
		if err != nil {
			return fmt.Errorf("%+v, and no frame behind: %w", direction.Tally(), err)
		}
		if bytes.HasSuffix(got[:n], probeFrame) {
			return nil
		}
	}
}
