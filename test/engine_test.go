package test

import (
	"bytes"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"tapsec/internal/lab/rig"
	"tapsec/tap"
	"tapsec/test/program"
	"tapsec/test/testkit"
)

// TestIdle: without frames the processor is not used, unless that was asked for.
func TestIdle(t *testing.T) {
	rig.Require(t)
	engines := []string{"plain"}
	if engine, _ := tap.Probe(); engine == tap.Ring {
		engines = append(engines, "ring")
	}
	config := write(t, headSA)
	start := func(engine, busy string) *process {
		name := engine + busy
		return start(t, config, "--engine", engine, "--queues", "2", "--busy-poll", busy, "--wire", "w"+name, "--host", "h"+name)
	}
	const limit = 0.05 // of a core
	var idle []*process
	for _, engine := range engines {
		idle = append(idle, start(engine, "0s"), start(engine, "100ms"))
	}
	for _, p := range idle {
		program.Await(t, fmt.Sprintf("%v uses next to nothing", p.cmd.Args), func() bool { return share(t, p.cmd.Process.Pid) < limit })
		p.stop()
	}
	for _, engine := range engines {
		p := start(engine, "1m")
		program.Await(t, fmt.Sprintf("%v looks for frames all the time", p.cmd.Args), func() bool { return share(t, p.cmd.Process.Pid) >= limit })
		p.stop()
	}
}

// share is what of a core a process uses for a second.
func share(t *testing.T, pid int) float64 {
	t.Helper()
	before, begin := ticks(t, pid), time.Now()
	time.Sleep(time.Second)
	const tick = 10 * time.Millisecond // USER_HZ of proc(5), the same everywhere
	return float64(time.Duration(ticks(t, pid)-before)*tick) / float64(time.Since(begin))
}

// ticks reads utime and stime of proc(5), which are the 14th and the 15th field; the second is in
// parentheses.
func ticks(t *testing.T, pid int) (sum int) {
	t.Helper()
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	for _, field := range fields[14-3 : 15-3+1] {
		n, err := strconv.Atoi(field)
		if err != nil {
			t.Fatalf("%s: %v", stat, err)
		}
		sum += n
	}
	return sum
}

// TestWithoutRing: where a filter like a container's forbids one of the ring's calls, frames are moved
// by the plain engine and the log says why; who insists on a ring is told what to do.
func TestWithoutRing(t *testing.T) {
	rig.Require(t)
	for name, call := range map[string]uint32{"set-up": unix.SYS_IO_URING_SETUP, "use": unix.SYS_IO_URING_ENTER} {
		t.Run(name, func(t *testing.T) {
			config := write(t, headSA)
			p := launchWithout(t, call, config)
			said := p.waitLog("msg=ready")
			if !strings.Contains(said, "is=plain") || !strings.Contains(said, "io_uring does not move frames here") {
				t.Error(said)
			}
			wire, host := listen(t, "wire0"), listen(t, "host0")
			frame := append([]byte("\x02\x00\x00\x00\x00\x02\x02\x00\x00\x00\x00\x01\x88\xb5"), make([]byte, 100)...)
			wire.send(frame)
			if got, _ := host.delivered(); !bytes.Equal(got, frame) {
				t.Errorf("%x", got)
			}
			p.stop()
			p = launchWithout(t, call, config, "--engine", "ring")
			p.end(1)
			if said := p.logged(); !strings.Contains(said, "choose plain") {
				t.Error(said)
			}
			absent(t, "wire0", "host0")
		})
	}
}

// launchWithout launches from a thread for which a call is forbidden, as it then is for the program.
func launchWithout(t *testing.T, call uint32, config string, flags ...string) (p *process) {
	t.Helper()
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // and not unlocked: the thread ends with its filter
		err := testkit.Forbid(call)
		if err == nil {
			p = launchAs(t, &syscall.SysProcAttr{}, config, flags...)
		}
		done <- err
		<-t.Context().Done() // the program ends with the thread that started it
	}()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	return p
}
