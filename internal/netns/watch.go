package netns

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Watch is a view of one interface that later needs no privileges: like Addresses it asks by index, and
// through a socket that was opened in the interface's namespace.
type Watch struct {
	netlink *netlink.Handle
	link    netlink.Link
	end     func() // of the news

	mu      sync.Mutex
	up      bool // when it was looked at last
	left    bool // its namespace, or was deleted
	closed  bool
	changed func(up bool)
}

// NewWatch watches an interface of the current namespace.
func NewWatch(name string) (*Watch, error) {
	handle, err := newHandle()
	if err != nil {
		return nil, fmt.Errorf("watch %s: %w", name, err)
	}
	link, err := handle.LinkByName(name)
	if err != nil {
		handle.Close()
		return nil, fmt.Errorf("watch %s: %w", name, err)
	}
	w := &Watch{netlink: handle, link: link}
	if w.end, err = news(link.Attrs().Index, w.Look, unix.RTNLGRP_LINK); err != nil {
		handle.Close()
		return nil, fmt.Errorf("watch %s: %w", name, err)
	}
	return w, nil
}

// newHandle opens a socket to ask the kernel by. An answer that does not come is an error after a while, since
// whoever asks has other things to do, such as to end.
func newHandle() (*netlink.Handle, error) {
	const patience = 5 * time.Second
	handle, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, err
	}
	if err := handle.SetSocketTimeout(patience); err != nil {
		handle.Close()
		return nil, err
	}
	return handle, nil
}

// Follow has changed called whenever the interface has begun to send and receive, or
// does so no longer, since it or its other end is down. One that is down for a moment
// may go unseen.
func (w *Watch) Follow(changed func(up bool)) {
	w.Look()
	w.mu.Lock()
	defer w.mu.Unlock()
	w.changed = changed
}

// Look sees how the interface is now. News of it are looked after, but some may be
// lost, so that whoever follows it calls this now and then.
func (w *Watch) Look() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return
	}
	link, err := w.netlink.LinkByIndex(w.link.Attrs().Index)
	if err != nil {
		w.left = errors.As(err, new(netlink.LinkNotFoundError))
		return // or there is an answer the next time
	}
	w.left = false
	if up := running(link.Attrs().RawFlags); up != w.up {
		w.up = up
		if w.changed != nil {
			w.changed(up)
		}
	}
}

// Left reports whether the interface, when it was looked at last, was no longer in the namespace: it was
// moved, or deleted.
func (w *Watch) Left() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.left
}

// running reports whether an interface with these flags sends and receives.
func running(flags uint32) bool { return flags&unix.IFF_UP != 0 && flags&unix.IFF_RUNNING != 0 }

// Ready waits until the interface really sends, as the function of that name does, or until ctx ends.
func (w *Watch) Ready(ctx context.Context) error {
	a := w.link.Attrs()
	return ready(ctx, a.Name, time.Now().Add(readyWithin), func() (netlink.Link, error) { return w.netlink.LinkByIndex(a.Index) })
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
func (w *Watch) Close() {
	w.end()
	w.mu.Lock() // news may still be looked after
	defer w.mu.Unlock()
	w.closed = true
	w.netlink.Close()
}
