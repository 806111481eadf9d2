package soak

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

// stream sends data over TCP from one host to the other, between the kernel's
// own stacks.
func (c *campaign) stream(number, from int, data []byte) error {
	to := netip.AddrPortFrom(paths[number].addr(number, 1-from), streamPort)
	var listener net.Listener
	if err := c.hosts[1-from].ns.Do(func() (err error) {
		listener, err = net.Listen("tcp", to.String())
		return err
	}); err != nil {
		return err
	}
	defer listener.Close()
	deadline := time.Now().Add(patience)
	arrived := make(chan []byte, 1)
	go func() {
		var all []byte
		if conn, err := listener.Accept(); err == nil {
			conn.SetDeadline(deadline)
			all, _ = io.ReadAll(conn) // what is missing shows
			conn.Close()
		}
		arrived <- all
	}()
	var conn net.Conn
	if err := c.hosts[from].ns.Do(func() (err error) {
		for ok := true; ok; ok = errors.Is(err, unix.EHOSTUNREACH) && time.Now().Before(deadline) {
			conn, err = net.DialTimeout("tcp", to.String(), patience) // a starting host does not answer its neighbours
		}
		return err
	}); err != nil {
		return err
	}
	conn.SetDeadline(deadline)
	_, err := conn.Write(data)
	err = errors.Join(err, conn.Close())
	if got := <-arrived; err == nil && !bytes.Equal(got, data) {
		err = fmt.Errorf("%d bytes arrived, or others", len(got))
	}
	return err
}
