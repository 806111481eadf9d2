package tap

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"tapsec/internal/lab/rig"
	"tapsec/test/testkit"
)

func TestEngineText(t *testing.T) {
	for _, e := range []Engine{Auto, Ring, Plain, Direct, XDP} {
		text, err := e.MarshalText()
		var back Engine
		if err := errors.Join(err, back.UnmarshalText(text)); err != nil || back != e {
			t.Errorf("%v: %s, %v", e, text, err)
		}
	}
	if err := new(Engine).UnmarshalText([]byte("rign")); err == nil || !strings.Contains(err.Error(), "auto, ring, plain, direct or xdp") {
		t.Error(err)
	}
}

// Where a machine has no ring that works the tests of the ring have nothing to run on.
func TestProbe(t *testing.T) {
	rig.Require(t)
	engine, why := Probe()
	if engine != Ring {
		rig.Missing(t, "needs a ring: "+why)
	}
	for _, single := range []bool{false, true} {
		if where, err := tryRing(single); err != nil || where != "a TAP of its own" {
			t.Errorf("single reads %v: %s, %v", single, where, err)
		}
		if err := tryPair(single); err != nil {
			t.Errorf("single reads %v, sockets: %v", single, err)
		}
	}
}

// On a busy machine the probe's frame comes late, which does not mean that it does not come.
func TestProbeIsPatient(t *testing.T) {
	sockets := func() (ends [2]*os.File) {
		fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		for i, fd := range fds {
			ends[i] = os.NewFile(uintptr(fd), "pair")
			t.Cleanup(func() { ends[i].Close() })
		}
		return ends
	}
	near, far := sockets(), sockets()
	if _, err := near[1].Write(probeFrame); err != nil {
		t.Fatal(err)
	}
	go func() {
		got := make([]byte, 256)
		n, _ := near[1].Read(got)
		time.Sleep(100 * time.Millisecond) // the machine is busy
		far[0].Write(got[:n])
	}()
	if err := tryMoving(&Device{name: "pair", queues: near[:1]}, far[1], false); err != nil {
		t.Error(err)
	}
}

// fewFiles leaves room for so many more open files, until the function returned is called.
func fewFiles(t *testing.T, more int) (restore func()) {
	t.Helper()
	var before unix.Rlimit
	free, err := unix.Dup(0)
	if err := errors.Join(err, unix.Close(free), unix.Getrlimit(unix.RLIMIT_NOFILE, &before)); err != nil {
		t.Fatal(err)
	}
	few := before
	few.Cur = uint64(free + more)
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &few); err != nil {
		t.Fatal(err)
	}
	return func() {
		if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &before); err != nil {
			t.Fatal(err)
		}
	}
}

// probing reports whether the process still has the probe's TAP open, as tun(4)'s fdinfo tells.
func probing(t *testing.T) bool {
	t.Helper()
	files, err := filepath.Glob("/proc/self/fdinfo/*")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	return slices.ContainsFunc(files, func(file string) bool {
		text, _ := os.ReadFile(file) // some end meanwhile
		return bytes.Contains(text, []byte("iff:\tprobe\n"))
	})
}

// Where the probe passed and the ring itself cannot be made, auto takes the plain engine and says so; who
// chose the ring is told what to do.
func TestRingCannotBeMade(t *testing.T) {
	if engine, why := Probe(); engine != Ring {
		rig.Missing(t, "needs a ring: "+why)
	}
	await(t, "the end of the probe's TAP", func() bool { return !probing(t) })
	a, b := openTAP(t, Config{Name: "ta"}), openTAP(t, Config{Name: "tb"})
	workers, err := Join(a, b, 0, Options{Room: 100})
	if err != nil || len(workers) != 1 {
		t.Fatal(workers, err)
	}
	if engine, why := workers[0].Engine(); engine != Ring || !strings.Contains(why, "moved a frame") {
		t.Errorf("%v: %s", engine, why)
	}
	for more := range 6 { // of the ring, its alarm, and twice a port's two
		restore := fewFiles(t, more)
		workers, err := Join(a, b, 0, Options{Room: 100})
		_, refused := Join(a, b, 0, Options{Room: 100, Engine: Ring})
		restore()
		if refused == nil || !strings.Contains(refused.Error(), "engine ring: ") || !strings.Contains(refused.Error(), "ulimit -n") {
			t.Errorf("room for %d files, a ring was asked for: %v", more, refused)
		}
		if more < 2 && errors.Is(err, unix.EMFILE) {
			continue // too few for the plain engine too
		}
		if err != nil || len(workers) != 2 {
			t.Fatal(workers, err)
		}
		if engine, why := workers[0].Engine(); engine != Plain || !strings.Contains(why, "too many open files") {
			t.Errorf("room for %d files: %v, %s", more, engine, why)
		}
	}
}

// A ring whose worker never began holds an interface only until either device is closed.
func TestUnusedRingGoesWithItsDevice(t *testing.T) {
	a, b := openTAP(t, Config{Name: "ta"}), openTAP(t, Config{Name: "tb"})
	workers, err := Join(a, b, 0, Options{Room: 100, Engine: Ring})
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(b.Close(), a.Close()); err != nil {
		t.Fatal(err)
	}
	if exists("ta") || exists("tb") {
		t.Error("an interface outlives its device")
	}
	if _, _, err := workers[0].Next(); !errors.Is(err, os.ErrClosed) {
		t.Error(err)
	}
}

// A filter that forbids the ring's calls is a thread's, which ends with its goroutine.
func TestProbeWithoutRing(t *testing.T) {
	for _, call := range []uint32{unix.SYS_IO_URING_SETUP, unix.SYS_IO_URING_ENTER, unix.SYS_IO_URING_REGISTER} {
		err := within(t, func() error {
			runtime.LockOSThread()
			if err := testkit.Forbid(call); err != nil {
				t.Error(err)
			}
			return tryPair(false)
		})
		if !errors.Is(err, unix.EPERM) {
			t.Errorf("call %d forbidden: %v", call, err)
		}
	}
}

// More frames than a batch, as a stage makes them of large packets.
func TestSendManyFrames(t *testing.T) { engines(t, testSendManyFrames) }

func testSendManyFrames(t *testing.T, how Options) {
	_, _, l := pair(t, how, 1514, 0)
	out := testkit.Listen(t, "tb")
	const count = 5*Batch + 7
	var frames [][]byte
	for i := range count {
		frames = append(frames, frame(i, 60+i))
	}
	if err := l.Send(frames); err != nil {
		t.Fatal(err)
	}
	for i := range count {
		if got, err := out.Receive(patience); err != nil || !bytes.Equal(got, frame(i, 60+i)) {
			t.Fatalf("frame %d: got %x, %v", i, got, err)
		}
	}
	if got := l.Tally(); got.Out != count || got.OutBytes != 60*count+count*(count-1)/2 {
		t.Errorf("%+v", got)
	}
}

// A worker that ended leaves the frames that come later to the next one.
func TestWorkersComeAndGo(t *testing.T) { engines(t, testWorkersComeAndGo) }

func testWorkersComeAndGo(t *testing.T, how Options) {
	a, b, _ := pair(t, how, 1514, 0)
	in, out := testkit.Listen(t, "ta"), testkit.Listen(t, "tb")
	for turn := range 5 {
		l := link(t, how, a, b, 1514, 0)
		for i := range 3 {
			if err := in.Send(frame(10*turn+i, 60)); err != nil {
				t.Fatal(err)
			}
		}
		for l.Tally().Out < 3 {
			frames, err := l.Receive()
			if err == nil {
				err = l.Send(frames)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		l.Stop()
		if _, err := l.Receive(); !errors.Is(err, ErrStopped) {
			t.Fatal(err)
		}
		for i := range 3 {
			if got, err := out.Receive(patience); err != nil || !bytes.Equal(got, frame(10*turn+i, 60)) {
				t.Fatalf("turn %d, frame %d: %x, %v", turn, i, got, err)
			}
		}
	}
}

// A thread that sleeps in the ring neither holds up the collector nor uses the processor.
func TestIdleLane(t *testing.T) { engines(t, testIdleLane) }

func testIdleLane(t *testing.T, how Options) {
	_, _, l := pair(t, how, 1514, 0)
	ended := make(chan error, 1)
	go func() {
		_, err := l.Receive()
		ended <- err
	}()
	time.Sleep(20 * time.Millisecond)
	before := processTime()
	err := within(t, func() error {
		for range 3 {
			runtime.GC()
			time.Sleep(100 * time.Millisecond)
		}
		return nil
	})
	if used := processTime() - before; err != nil || used > 150*time.Millisecond {
		t.Errorf("%v of the processor in 300ms, %v", used, err)
	}
	l.Stop()
	if err := within(t, func() error { return <-ended }); !errors.Is(err, ErrStopped) {
		t.Error(err)
	}
}

func processTime() time.Duration {
	var now unix.Timespec
	unix.ClockGettime(unix.CLOCK_PROCESS_CPUTIME_ID, &now)
	return time.Duration(now.Nano())
}

func TestBusyPoll(t *testing.T) { engines(t, testBusyPoll) }

func testBusyPoll(t *testing.T, how Options) {
	how.BusyPoll = time.Minute
	_, _, l := pair(t, how, 1514, 0)
	in := testkit.Listen(t, "ta")
	received := make(chan error, 1)
	go func() {
		for {
			frames, err := l.Receive()
			if err == nil {
				err = l.Send(frames)
			}
			if err != nil {
				received <- err
				return
			}
		}
	}()
	for i := range 5 {
		time.Sleep(5 * time.Millisecond)
		if err := in.Send(frame(i, 60)); err != nil {
			t.Fatal(err)
		}
	}
	await(t, "five frames out", func() bool { return l.Tally().Out == 5 })
	l.Stop()
	if err := within(t, func() error { return <-received }); !errors.Is(err, ErrStopped) {
		t.Error(err)
	}
}
