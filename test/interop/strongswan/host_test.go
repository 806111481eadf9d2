package strongswan

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"tapsec/internal/netns"
	"tapsec/sa"
	"tapsec/test/program"
)

// version is the IP version of the outer packets.
type version int

var versions = []version{4, 6}

func (v version) String() string { return fmt.Sprintf("v%d", int(v)) }

// tunMTU leaves room for the longest headers, IV, pad and ICV within 1500 bytes.
const tunMTU = 1360

// queue is how many frames may wait in a TAP while the other end has no processor.
const queue = "20000"

// host is one of the two ends: a namespace with a TAP of tapsec's as its only link.
type host struct {
	ns   *netns.Namespace
	name string // a or b
	link string // the TAP's name
	n    int    // in its addresses
}

// newHost makes a host. The TAP is there before and after tapsec.
func newHost(t *testing.T, name, link string, n int) *host {
	t.Helper()
	ns, err := netns.New(name)
	if err != nil {
		t.Fatal(err)
	}
	h := &host{ns, name, link, n}
	t.Cleanup(func() {
		if err := ns.Close(); err != nil {
			t.Error(err)
		}
	})
	if err := ns.Do(func() error {
		err := errors.Join(netns.AddTAP(link, false), netns.Up("lo"), netns.Up(link))
		for _, v := range versions {
			err = errors.Join(err, netns.Address(link, netip.PrefixFrom(h.outer(v), map[version]int{4: 24, 6: 64}[v])))
			for _, in := range h.inner(v) {
				err = errors.Join(err, netns.Address("lo", netip.PrefixFrom(in, in.BitLen())))
			}
		}
		return errors.Join(err, exec.Command("ip", "link", "set", link, "txqueuelen", queue).Run())
	}); err != nil {
		t.Fatal(err)
	}
	return h
}

func (h *host) initiates() bool { return h.name == "a" }

// outer is the host's address towards its peer.
func (h *host) outer(v version) netip.Addr {
	if v == 4 {
		return netip.AddrFrom4([4]byte{192, 0, 2, byte(h.n)})
	}
	return netip.MustParseAddr(fmt.Sprintf("2001:db8::%d", h.n))
}

// inner are the addresses behind the tunnel over v, one of each IP version.
func (h *host) inner(v version) [2]netip.Addr {
	return [2]netip.Addr{netip.AddrFrom4([4]byte{10, byte(v), byte(h.n), 1}), netip.MustParseAddr(fmt.Sprintf("fd0%d:%d::1", int(v), h.n))}
}

// owns tells whether an address is one of the host's behind its tunnels.
func (h *host) owns(addr netip.Addr) bool {
	for _, v := range versions {
		if in := h.inner(v); addr == in[0] || addr == in[1] {
			return true
		}
	}
	return false
}

func (h *host) mac(t *testing.T) (mac net.HardwareAddr) {
	t.Helper()
	if err := h.ns.Do(func() error {
		ifi, err := net.InterfaceByName(h.link)
		if err == nil {
			mac = ifi.HardwareAddr
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	return mac
}

// run runs a program in the host to its end, and returns what it says.
func (h *host) run(t *testing.T, name string, args ...string) string {
	t.Helper()
	var out bytes.Buffer
	ctx, cancel := context.WithTimeout(context.Background(), program.Patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Stdout, cmd.Stderr = &out, &out
	err := h.ns.Do(cmd.Start)
	if err == nil {
		err = cmd.Wait()
	}
	if err != nil {
		t.Fatalf("%s: %v\n%s", cmd, err, &out)
	}
	return out.String()
}

func (h *host) selectors(v version) string {
	in := h.inner(v)
	return fmt.Sprintf("%s/32,%s/128", in[0], in[1])
}

// mtu sets an interface's MTU, and lets as many packets wait in it as in the TAP.
func (h *host) mtu(link string, mtu int) error {
	return h.ns.Do(func() error {
		return errors.Join(netns.SetMTU(link, mtu), exec.Command("ip", "link", "set", link, "txqueuelen", queue).Run())
	})
}

// suites are those that kernel-libipsec 5.9.8 and tapsec both have: all but GMAC
// and SHA-256 cut to 96 bits, which charon negotiates and libipsec then refuses.
func suites() []string {
	var all []string
	for _, s := range sa.Suites(sa.ESP) {
		if !strings.HasSuffix(s.Name, "gmac") && !strings.HasSuffix(s.Name, "sha256_96") {
			all = append(all, s.Name)
		}
	}
	return all
}

// loaded are the suites that carry bulk transfers through a rekey.
var loaded = []string{"aes128gcm16", "aes256gcm16", "chacha20poly1305", "aes128-sha256", "aes256-sha384", "aes256-sha512", "aes128ctr-sha256", "aes256ccm16"}

func bulk(suite string) bool { return slices.Contains(loaded, suite) }
