package nic

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"os/exec"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"tapsec/internal/lab/rig"
	"tapsec/internal/netns"
)

// peerVar makes the test binary, run once more, the network around the NIC: a process of its own
// that sends numbered frames into one interface and counts what comes out of the other.
const peerVar = "TAPSEC_NIC_PEER"

// order tells a peer what to do.
type order struct {
	From, To  string // interfaces, from the kernel's side
	Namespace string // where To is, if not here
	Count     int    // frames to send; 0 goes on until the account is asked for
	Window    int    // frames that may be under way; 0 sends in bursts without looking
	Flows     int    // numbered each for itself
}

// unknown is more frames than are ever sent or lost.
const unknown = math.MaxInt

// account is what the peer has seen.
type account struct {
	Sent, Refused, Received int
	Disordered, Damaged     int
}

func TestMain(m *testing.M) {
	if job := os.Getenv(peerVar); job != "" {
		if err := peer(job); err != nil {
			fmt.Fprintln(os.Stderr, "peer:", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	rig.Main(m)
}

// start starts a peer; the function returned asks for its account and waits until all was sent and has come
// but so many frames.
func start(t testing.TB, o order) (finish func(lost int) account) {
	t.Helper()
	job, err := json.Marshal(o)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), peerVar+"="+string(job), "GORACE=atexit_sleep_ms=0")
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &unix.SysProcAttr{Pdeathsig: unix.SIGKILL}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	asked, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return func(lost int) account {
		t.Helper()
		var a account
		err := errors.Join(json.NewEncoder(asked).Encode(lost), json.NewDecoder(out).Decode(&a), cmd.Wait())
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
}

func peer(job string) error {
	var o order
	if err := json.Unmarshal([]byte(job), &o); err != nil {
		return err
	}
	in, err := rig.OpenSocket(o.From)
	if err != nil {
		return err
	}
	out, err := openIn(o.Namespace, o.To)
	if err != nil {
		return err
	}
	var a account
	var received, enough atomic.Int64
	enough.Store(unknown)
	done, asked := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		a.Received, a.Disordered, a.Damaged = listen(out, o, &received, &enough)
	}()
	lost := 0
	go func() {
		err = json.NewDecoder(os.Stdin).Decode(&lost)
		close(asked)
	}()
	a.Sent, a.Refused = talk(in, o, &received, asked)
	if <-asked; err != nil {
		return err
	}
	enough.Store(int64(a.Sent - lost))
	<-done
	return json.NewEncoder(os.Stdout).Encode(a)
}

func openIn(namespace, name string) (s *rig.Socket, err error) {
	if namespace == "" {
		return rig.OpenSocket(name)
	}
	ns, err := netns.Open(namespace)
	if err != nil {
		return nil, err
	}
	defer ns.Close()
	err = ns.Do(func() error {
		s, err = rig.OpenSocket(name)
		return err
	})
	return s, err
}

// talk sends the frames, in a window or in bursts of a hundred a millisecond. A deleted interface ends it.
func talk(in *rig.Socket, o order, received *atomic.Int64, asked chan struct{}) (sent, refused int) {
	deadline := time.Now().Add(patience)
	for i := 0; i < o.Count || o.Count == 0 && !isClosed(asked); i++ {
		for o.Window > 0 && i-int(received.Load()) >= o.Window && time.Now().Before(deadline) {
			time.Sleep(50 * time.Microsecond)
		}
		if o.Window == 0 && i%100 == 99 {
			time.Sleep(time.Millisecond)
		}
		switch err := in.Send(numbered(i%o.Flows, i/o.Flows)); {
		case err == nil:
			sent++
		case errors.Is(err, unix.ENOBUFS):
			refused++
		default:
			return sent, refused
		}
	}
	return sent, refused
}

func isClosed(c chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// listen ends when enough frames are there, and for a moment no more.
func listen(out *rig.Socket, o order, received, enough *atomic.Int64) (count, disordered, damaged int) {
	next := make([]int, o.Flows)
	var since time.Time // the end of the sending
	for {
		frame, err := out.Receive(20 * time.Millisecond)
		if err != nil { // time, or the interface went down
			if enough.Load() != unknown && since.IsZero() {
				since = time.Now()
			}
			if count >= int(enough.Load()) || !since.IsZero() && time.Since(since) > patience {
				return count, disordered, damaged
			}
			continue
		}
		count++
		received.Add(1)
		flow, number, ok := read(frame, o.Flows)
		switch {
		case !ok:
			damaged++
		case number < next[flow]:
			disordered++
		default:
			next[flow] = number + 1
		}
	}
}

// numbered makes an Ethernet frame with a UDP packet over IPv4, its length a function of its number.
// A UDP port for each flow lets the kernel spread flows over queues. The checksums stay zero.
func numbered(flow, number int) []byte {
	size := 60 + number%1455
	f := make([]byte, size)
	copy(f, "\x02\x00\x00\x00\x00\x02\x02\x00\x00\x00\x00\x01\x08\x00\x45")
	binary.BigEndian.PutUint16(f[16:], uint16(size-14))
	copy(f[22:], "\x40\x11\x00\x00\xc0\x00\x02\x01\xc0\x00\x02\x02")
	binary.BigEndian.PutUint16(f[34:], uint16(10000+flow))
	binary.BigEndian.PutUint16(f[36:], 9)
	binary.BigEndian.PutUint16(f[38:], uint16(size-34))
	binary.BigEndian.PutUint32(f[42:], uint32(flow))
	binary.BigEndian.PutUint32(f[46:], uint32(number))
	copy(f[stampAt+2:], filler[number%251:])
	return f
}

// filler is what numbered frames are filled with, from an offset that tells neighbours apart.
var filler = func() (b [2048]byte) {
	for i := range b {
		b[i] = byte(i % 251)
	}
	return b
}()

// stampAt is where stages under test may write two bytes.
const stampAt = 50

// read is numbered in reverse; it takes no notice of the stamp's two bytes unless they differ.
func read(frame []byte, flows int) (flow, number int, ok bool) {
	if len(frame) < 60 || frame[stampAt] != frame[stampAt+1] {
		return 0, 0, false
	}
	flow, number = int(binary.BigEndian.Uint32(frame[42:])), int(binary.BigEndian.Uint32(frame[46:]))
	if flow >= flows {
		return 0, 0, false
	}
	want := numbered(flow, number)
	copy(want[stampAt:], frame[stampAt:stampAt+2])
	return flow, number, string(want) == string(frame)
}
