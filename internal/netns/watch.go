package netns

import (
	"fmt"
	"net/netip"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Watch is a view of one interface that needs no privileges and lasts: it asks through a socket that was
// opened in the interface's namespace, and by index, so that a renamed interface is still the same one.
// It may be used by several goroutines.
type Watch struct {
	netlink *netlink.Handle
	link    netlink.Link
}

// NewWatch watches an interface of the current namespace.
func NewWatch(name string) (*Watch, error) {
	handle, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("watch %s: %w", name, err)
	}
	link, err := handle.LinkByName(name)
	if err != nil {
		handle.Close()
		return nil, fmt.Errorf("watch %s: %w", name, err)
	}
	return &Watch{handle, link}, nil
}

// Addresses returns those that the interface has now, in the kernel's order.
func (w *Watch) Addresses() ([]netip.Addr, error) {
	found, err := w.netlink.AddrList(w.link, netlink.FAMILY_ALL)
	if err != nil {
		return nil, fmt.Errorf("addresses of %s: %w", w.link.Attrs().Name, err)
	}
	var all []netip.Addr
	for _, a := range found {
		ip, _ := netip.AddrFromSlice(a.IP)
		all = append(all, ip.Unmap())
	}
	return all, nil
}

// Ready waits until the interface really sends, as the function of that name does.
func (w *Watch) Ready() error {
	a := w.link.Attrs()
	return ready(a.Name, time.Now().Add(3*time.Second), func() (netlink.Link, error) { return w.netlink.LinkByIndex(a.Index) })
}

// Close ends the view.
func (w *Watch) Close() { w.netlink.Close() }
