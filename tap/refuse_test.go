package tap

import (
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"tapsec/internal/lab/rig"
	"tapsec/test/testkit"
)

// limit makes a TAP refuse frames. Its send buffer holds one, and the kernel has what is written to it
// taken up by another core than the writer's, which needs a while for it.
func limit(t *testing.T, d *Device) {
	t.Helper()
	const second = "2"
	receiveOn(t, d.Name(), second)
	if err := control(d.queues[0], func(fd int) error { return unix.IoctlSetPointerInt(fd, unix.TUNSETSNDBUF, 1) }); err != nil {
		t.Fatal(err)
	}
}

// receiveOn has the kernel take up what comes in by an interface on the cores of a mask.
func receiveOn(t *testing.T, name, cores string) {
	t.Helper()
	sys := t.TempDir()
	if err := unix.Mount("sysfs", sys, "sysfs", 0, ""); err != nil {
		rig.Missing(t, "needs a sysfs of the rig's: "+err.Error())
	}
	defer unix.Unmount(sys, 0)
	if err := os.WriteFile(filepath.Join(sys, "class/net", name, "queues/rx-0/rps_cpus"), []byte(cores), 0); err != nil {
		rig.Missing(t, "needs two cores, and a kernel that steers packets to one (RPS): "+err.Error())
	}
}

// crowd sends so many numbered frames by a link from the first core, to a device that is limited once
// the ring was made, and returns the numbers of those that came out of there, in their order.
func crowd(t *testing.T, l *single, to *Device, out *rig.Socket, count int) (came []int) {
	t.Helper()
	const under = 4 * Batch // way, so that the socket's buffer takes them all
	window, sent, made := make(chan int, under), make(chan error, 1), make(chan struct{})
	go func() {
		runtime.LockOSThread() // and not unlocked: the thread ends with its core set
		first := unix.CPUSet{1}
		err := errors.Join(unix.SchedSetaffinity(0, &first), l.Send(nil))
		made <- struct{}{}
		<-made
		for at := 0; at < count && err == nil; at += Batch {
			var batch [][]byte
			for number := at; number < min(at+Batch, count); number++ {
				window <- number
				batch = append(batch, frame(number, 60+number%1400))
			}
			err = l.Send(batch)
		}
		sent <- err
	}()
	<-made
	limit(t, to)
	made <- struct{}{}
	for len(came) < count {
		got, err := out.Receive(patience)
		if err != nil {
			t.Fatalf("after %d frames: %v, %+v", len(came), err, l.Tally())
		}
		number := int(binary.BigEndian.Uint16(got[14:]))
		if want := frame(number, 60+number%1400); string(got) != string(want) {
			t.Fatalf("frame %d is damaged", number)
		}
		came = append(came, number)
		<-window
	}
	if err := within(t, func() error { return <-sent }); err != nil {
		t.Fatal(err)
	}
	if got, err := out.Receive(20 * time.Millisecond); err == nil {
		t.Errorf("one more frame: %x", got)
	}
	if got := l.Tally(); got.Out != uint64(count) || got.HostDown != 0 || got.Retries == 0 {
		t.Errorf("%+v", got)
	}
	return came
}

// A TAP that refuses frames for the moment loses none, gets none twice, and all in order.
func TestRefusingTAP(t *testing.T) { engines(t, testRefusingTAP) }

func testRefusingTAP(t *testing.T, how Options) {
	_, b, l := pair(t, how, 1514, 0)
	for i, number := range crowd(t, l, b, testkit.Listen(t, "tb"), 2000) {
		if number != i {
			t.Fatalf("frame %d came in the place of %d", number, i)
		}
	}
}
