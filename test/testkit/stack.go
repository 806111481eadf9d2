package testkit

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os/exec"
	"strings"
	"testing"
	"time"

	"tapsec/internal/netns"
)

// Stack is a Linux stack: a network namespace of its own.
type Stack struct {
	*netns.Namespace
	t testing.TB
}

// NewStack makes a stack in a namespace of that name; "" is none.
func NewStack(t testing.TB, name string) *Stack {
	t.Helper()
	ns, err := netns.New(name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ns.Close() })
	return &Stack{ns, t}
}

// Must does f in the namespace.
func (s *Stack) Must(f func() error) {
	s.t.Helper()
	if err := s.Do(f); err != nil {
		s.t.Fatal(err)
	}
}

// Run runs a command there.
func (s *Stack) Run(command string) (said string, err error) {
	s.t.Helper()
	s.Must(func() error {
		args := strings.Fields(command)
		out, failure := exec.Command(args[0], args[1:]...).CombinedOutput()
		said, err = string(out), failure
		return nil
	})
	return said, err
}

// PathMTU is what the stack has learnt of the way to an address; "" is nothing.
func (s *Stack) PathMTU(to netip.Addr) string {
	s.t.Helper()
	said, _ := s.Run("ip route get " + to.String())
	_, mtu, _ := strings.Cut(said, " mtu ")
	mtu, _, _ = strings.Cut(mtu+" ", " ")
	return strings.TrimSpace(mtu)
}

// Transfer sends n bytes by TCP to another stack's address, and wants them there.
func (s *Stack) Transfer(to *Stack, addr netip.Addr, n int) {
	s.t.Helper()
	var listener net.Listener
	to.Must(func() (err error) {
		listener, err = net.Listen("tcp", netip.AddrPortFrom(addr, 9).String())
		return err
	})
	defer listener.Close()
	got := make(chan []byte, 1)
	go func() {
		var b []byte
		if c, err := listener.Accept(); err == nil {
			_ = c.SetDeadline(time.Now().Add(Patience))
			b, _ = io.ReadAll(c) // what is missing shows
			c.Close()
		}
		got <- b
	}()
	var conn net.Conn
	s.Must(func() (err error) {
		conn, err = net.DialTimeout("tcp", listener.Addr().String(), Patience)
		return err
	})
	_ = conn.SetDeadline(time.Now().Add(Patience))
	sent := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{byte(n)}).Read(sent)
	_, err := conn.Write(sent)
	err = errors.Join(err, conn.Close())
	if b := <-got; err != nil || !bytes.Equal(b, sent) {
		s.t.Fatalf("%d of %d bytes arrived, %v", len(b), n, err)
	}
}
