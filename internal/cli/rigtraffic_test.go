package cli

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"tapsec/configs"
	"tapsec/internal/lab/hosts"
	"tapsec/internal/lab/rig"
	"tapsec/sa"
	"tapsec/wire"
)

// partVar makes the test binary, run in a host, play a part.
const partVar = "TAPSEC_TEST_PART"

// TestRigPart is no test by itself: it is what the others run in the hosts.
func TestRigPart(t *testing.T) {
	part, argument, _ := strings.Cut(os.Getenv(partVar), " ")
	parts := map[string]func(string) error{"serve": serve, "talk": talk, "stream": stream, "watch": watch}
	if part == "" {
		t.Skip("a part of other tests")
	}
	if err := parts[part](argument); err != nil {
		t.Fatal(err)
	}
}

// inHost is the test binary in a host, in that part.
func inHost(t *testing.T, host, part string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("tapsec", "rig", "exec", host, "--", self, "-test.run=^TestRigPart$")
	cmd.Env = append(os.Environ(), partVar+"="+part)
	return cmd
}

// background starts a part and waits for its first line.
func background(t *testing.T, host, part string) (lines *bufio.Reader, stop func()) {
	t.Helper()
	cmd := inHost(t, host, part)
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	stop = func() {
		cmd.Process.Kill()
		cmd.Wait()
	}
	t.Cleanup(stop)
	lines = bufio.NewReader(out)
	if _, err := lines.ReadString('\n'); err != nil {
		t.Fatalf("%s in %s: %v", part, host, err)
	}
	return lines, stop
}

const port = "7000"

// serve answers each TCP stream with its hash, and each datagram with itself.
func serve(string) error {
	listener, err := net.Listen("tcp", ":"+port)
	if err != nil {
		return err
	}
	datagrams, err := net.ListenPacket("udp", ":"+port)
	if err != nil {
		return err
	}
	fmt.Println("serving")
	go func() {
		b := make([]byte, 1<<16)
		for {
			n, from, err := datagrams.ReadFrom(b)
			if err != nil {
				return
			}
			datagrams.WriteTo(b[:n], from)
		}
	}()
	for {
		c, err := listener.Accept()
		if err != nil {
			return err
		}
		hash := sha256.New()
		if _, err := io.Copy(hash, c); err != nil {
			return err
		}
		c.Write(hash.Sum(nil))
		c.Close()
	}
}

// talk sends to a server at an address, and compares what comes back.
func talk(address string) error {
	return errors.Join(stream(address), datagrams(address))
}

func stream(address string) error {
	c, err := net.DialTimeout("tcp", net.JoinHostPort(address, port), patience)
	if err != nil {
		return err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(patience))
	data := make([]byte, 1<<20)
	rand.Read(data)
	if _, err := c.Write(data); err != nil {
		return err
	}
	c.(*net.TCPConn).CloseWrite()
	answer, err := io.ReadAll(c)
	if sum := sha256.Sum256(data); err != nil || !bytes.Equal(answer, sum[:]) {
		return fmt.Errorf("TCP: %x came back of %d bytes sent, %w", answer, len(data), err)
	}
	return nil
}

func datagrams(address string) error {
	c, err := net.Dial("udp", net.JoinHostPort(address, port))
	if err != nil {
		return err
	}
	defer c.Close()
	answer := make([]byte, 1<<16)
	for _, size := range []int{1, 100, hosts.MTU - 48, hosts.MTU - 28, 2000, 9000} { // the last ones are fragmented
		data := make([]byte, size)
		rand.Read(data)
		c.SetDeadline(time.Now().Add(patience))
		if _, err := c.Write(data); err != nil {
			return err
		}
		n, err := c.Read(answer)
		if err != nil || !bytes.Equal(answer[:n], data) {
			return fmt.Errorf("UDP: %d of %d bytes came back, %v", n, size, err)
		}
	}
	return nil
}

// watch prints protocol and source of the IPv4 packets that host b sends to the wire.
func watch(name string) error {
	s, err := rig.OpenSocket(name)
	if err != nil {
		return err
	}
	fmt.Println("watching")
	for {
		frame, err := s.Receive(time.Minute)
		if err != nil {
			return err
		}
		if kind, ip, ok := wire.Ethernet(frame); ok && kind == wire.EtherIPv4 {
			if p, err := wire.ParseIP(frame, ip, len(frame), 4); err == nil {
				fmt.Println(p.Proto, "from", p.Src)
			}
		}
	}
}

// TestRigTraffic: in every shape of the rig hosts reach each other by TCP and UDP, in both directions
// and families, with packets of every size.
func TestRigTraffic(t *testing.T) {
	needRig(t)
	for _, flags := range []string{"", "--split", "--clear-answers", "--profile ixgbe-82599", "--profile ndis-v1 --split"} {
		t.Run(strings.ReplaceAll(flags, " ", "_"), func(t *testing.T) {
			up(t, strings.Fields(flags)...)
			background(t, "a", "serve")
			background(t, "b", "serve")
			for _, way := range []string{"a 10.77.0.2", "a fd77::2", "b 10.77.0.1", "b fd77::1"} {
				host, address, _ := strings.Cut(way, " ")
				if out, err := inHost(t, host, "talk "+address).CombinedOutput(); err != nil {
					t.Errorf("%s: %v\n%s", way, err, out)
				}
			}
		})
	}
}

// TestRigWire: nothing between the hosts is in clear, unless that was asked for.
func TestRigWire(t *testing.T) {
	needRig(t)
	for _, clear := range []bool{false, true} {
		var flags []string
		want := "50 from 192.0.2.2\n"
		if clear {
			flags, want = []string{"--clear-answers"}, "1 from 10.77.0.2\n"
		}
		up(t, flags...)
		lines, stop := background(t, "nic", "watch wire0")
		must(t, 0, "rig", "exec", "a", "--", "ping", "-c3", "-i0.01", "-w60", "10.77.0.2")
		for range 3 {
			if got, err := lines.ReadString('\n'); err != nil || got != want {
				t.Errorf("clear answers %t: %q on the wire, %v", clear, got, err)
			}
		}
		stop()
		must(t, 0, "rig", "down")
	}
}

// TestRigSizes: up to the MTU packets need not be fragmented; larger ones arrive in pieces, or are
// answered with how large they may be.
func TestRigSizes(t *testing.T) {
	needRig(t)
	up(t)
	ping := func(code int, flags ...string) {
		t.Helper()
		must(t, code, append([]string{"rig", "exec", "a", "--", "ping", "-c1", "-W60"}, flags...)...)
	}
	for address, header := range map[string]int{"10.77.0.2": 20, "fd77::2": 40} {
		full := hosts.MTU - header - 8
		for _, size := range []int{0, 16, 1000, full - 1, full} {
			ping(0, "-M", "do", "-s", fmt.Sprint(size), address)
		}
		ping(1, "-W0.1", "-M", "do", "-s", fmt.Sprint(full+1), address)
		for _, size := range []int{full + 1, 3000, 20000} {
			ping(0, "-s", fmt.Sprint(size), address)
		}
	}
}

// TestRigPathMTU: where the stack's MTU leaves no room for ESP it is told so, and TCP finds its way.
func TestRigPathMTU(t *testing.T) {
	needRig(t)
	up(t)
	for _, host := range []string{"a", "b"} {
		must(t, 0, "rig", "exec", host, "--", "ip", "link", "set", "stack0", "mtu", "1500")
	}
	r := must(t, 1, "rig", "exec", "a", "--", "ping", "-c1", "-W60", "-M", "do", "-s", "1472", "10.77.0.2")
	if !strings.Contains(r.out, "mtu = 14") {
		t.Errorf("said\n%s", r.out)
	}
	background(t, "b", "serve")
	if out, err := inHost(t, "a", "stream 10.77.0.2").CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

// TestRigNeighbours: ARP and neighbour discovery pass, in the midst of traffic too.
func TestRigNeighbours(t *testing.T) {
	needRig(t)
	up(t)
	for range 3 {
		must(t, 0, "rig", "exec", "a", "--", "ip", "neigh", "flush", "all")
		pings(t)
	}
	out := must(t, 0, "rig", "exec", "a", "--", "ip", "neigh").out
	for _, address := range []string{"10.77.0.2", "fd77::2"} {
		if !strings.Contains(out, address+" dev stack0 lladdr ") {
			t.Errorf("no %s in\n%s", address, out)
		}
	}
}

// TestRigReload: SIGHUP to the supervisor has all programs take over other keys.
func TestRigReload(t *testing.T) {
	needRig(t)
	up(t)
	r := reports(t, 0)[0]
	full, _ := sa.ProfileByName("full")
	if err := os.WriteFile(r.Config, configs.Rig(full, true), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := unix.Kill(r.Supervisor.PID, unix.SIGHUP); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		log, err := os.ReadFile(r.Log)
		if err != nil || time.Now().After(deadline) {
			t.Fatalf("%v\n%s", err, log)
		}
		if bytes.Count(log, []byte("msg=reloaded")) == len(r.Programs) {
			break
		}
	}
	pings(t)
}
