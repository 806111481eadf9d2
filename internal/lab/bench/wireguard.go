package bench

import (
	"context"
	"crypto/ecdh"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"time"

	"tapsec/internal/lab/rig"
	"tapsec/internal/netns"
)

// wireguard is two of wireguard-go, each in a namespace of its own with one end of a veth.
type wireguard struct {
	ns       map[string]*netns.Namespace
	programs []*exec.Cmd
	cancel   context.CancelFunc
}

// sockets is where wireguard-go has its sockets, whatever one says.
const sockets = "/run/wireguard"

// newWireguard puts both up, with fresh keys. Rig must have been asked for sockets.
func newWireguard(program string) (w *wireguard, err error) {
	ctx, cancel := context.WithCancel(context.Background())
	w = &wireguard{ns: map[string]*netns.Namespace{}, cancel: cancel}
	defer func() {
		if err != nil {
			err = errors.Join(err, w.Close())
		}
	}()
	if _, err := rig.QuietVeths(1500, "wg"); err != nil {
		return nil, err
	}
	ends, keys := []string{"wg", rig.FarEnd("wg")}, [2]*ecdh.PrivateKey{}
	for i := range keys {
		if keys[i], err = ecdh.X25519().GenerateKey(rand.Reader); err != nil {
			return nil, err
		}
	}
	for i, host := range []string{"a", "b"} {
		ns, err := netns.New(WireGuard + "-" + host)
		if err != nil {
			return nil, err
		}
		w.ns[host] = ns
		if err := ns.Take(ends[i]); err != nil {
			return nil, err
		}
		if err := w.start(ctx, program, host, ends[i], i, settings(keys[i], keys[1-i], 2-i)); err != nil {
			return nil, err
		}
	}
	return w, nil
}

// settings is a host's configuration (wireguard.com/xplatform) whose peer has that number.
func settings(own, peer *ecdh.PrivateKey, number int) string {
	return fmt.Sprintf("set=1\nprivate_key=%x\nlisten_port=5182\npublic_key=%x\nendpoint=10.79.0.%d:5182\nallowed_ip=10.78.0.0/24\n\n",
		own.Bytes(), peer.PublicKey().Bytes(), number)
}

// start runs one of the two and gives it its configuration and addresses.
func (w *wireguard) start(ctx context.Context, program, host, outer string, number int, settings string) error {
	inner := "wg" + host
	cmd := bound(ctx, program, "-f", inner)
	cmd.Env = append(os.Environ(), "LOG_LEVEL=error")
	var said strings.Builder
	cmd.Stderr = &said
	if err := w.ns[host].Do(cmd.Start); err != nil {
		return err
	}
	w.programs = append(w.programs, cmd)
	if err := configure(sockets+"/"+inner+".sock", settings); err != nil {
		return err
	}
	return w.ns[host].Do(func() (err error) {
		for name, network := range map[string]byte{outer: 79, inner: 78} {
			address := netip.AddrFrom4([4]byte{10, network, 0, byte(number + 1)})
			err = errors.Join(err, netns.Address(name, netip.PrefixFrom(address, 24)), netns.Up(name))
		}
		return err
	})
}

// configure waits until a program listens on a socket, and gives it settings.
func configure(socket, settings string) error {
	var c net.Conn
	var err error
	for begin := time.Now(); time.Since(begin) < patience; time.Sleep(5 * time.Millisecond) {
		if c, err = net.Dial("unix", socket); err == nil {
			break
		}
	}
	if err != nil {
		return fmt.Errorf("wireguard-go does not start: %w", err)
	}
	defer c.Close()
	if _, err := io.WriteString(c, settings); err != nil {
		return err
	}
	answer := make([]byte, 256)
	_ = c.SetReadDeadline(time.Now().Add(patience))
	n, err := c.Read(answer)
	if said := string(answer[:n]); !strings.HasPrefix(said, "errno=0\n") {
		return fmt.Errorf("wireguard-go: expected errno=0 after its configuration, found %q: %w", said, err)
	}
	return nil
}

// There is carrier's.
func (w *wireguard) There() string { return "10.78.0.2" }

// Do is carrier's.
func (w *wireguard) Do(host string, f func() error) error { return w.ns[host].Do(f) }

// Used is carrier's, by the clocks of both processes (clock_getcpuclockid(3)).
func (w *wireguard) Used() (all time.Duration) {
	for _, p := range w.programs {
		const scheduler = 2
		all += clock(int32(^p.Process.Pid<<3 | scheduler))
	}
	return all
}

// Close is carrier's.
func (w *wireguard) Close() (err error) {
	w.cancel()
	for _, p := range w.programs {
		_ = p.Wait() // killed
	}
	for _, ns := range w.ns {
		err = errors.Join(err, ns.Close())
	}
	return err
}
