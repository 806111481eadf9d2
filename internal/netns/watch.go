package netns

import (
	"fmt"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Watch is a view of one interface that later needs no privileges: like Addresses it asks by index, and
// through a socket that was opened in the interface's namespace.
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

// Ready waits until the interface really sends, as the function of that name does.
func (w *Watch) Ready() error {
	a := w.link.Attrs()
	return ready(a.Name, time.Now().Add(readyWithin), func() (netlink.Link, error) { return w.netlink.LinkByIndex(a.Index) })
}

// MTU returns the interface's in bytes, without the Ethernet header, as it is now.
func (w *Watch) MTU() (int, error) {
	link, err := w.netlink.LinkByIndex(w.link.Attrs().Index)
	if err != nil {
		return 0, fmt.Errorf("the MTU of %s: %w", w.link.Attrs().Name, err)
	}
	return link.Attrs().MTU, nil
}

// Close ends the view.
func (w *Watch) Close() { w.netlink.Close() }
