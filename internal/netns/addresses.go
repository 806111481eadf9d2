package netns

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Addresses follows the addresses of one interface, by its index, so that renaming it does not
// matter. It asks through sockets opened at the start, and so needs no privileges later, nor
// the namespace's name.
type Addresses struct {
	handle  *netlink.Handle
	index   int
	changed chan struct{}
	end     func() // of the news
	once    sync.Once
}

// Follow begins to follow the addresses of an interface of the current namespace.
func Follow(name string) (*Addresses, error) {
	a := &Addresses{changed: make(chan struct{}, 1)}
	link, err := netlink.LinkByName(name)
	if err != nil {
		return nil, fmt.Errorf("interface %s: %w", name, err)
	}
	a.index = link.Attrs().Index
	if a.handle, err = newHandle(); err != nil {
		return nil, fmt.Errorf("ask for the addresses of %s: %w", name, err)
	}
	if a.end, err = news(a.index, a.tell, unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV6_IFADDR); err != nil {
		a.handle.Close()
		return nil, fmt.Errorf("follow the addresses of %s: %w", name, err)
	}
	return a, nil
}

func (a *Addresses) tell() {
	select {
	case a.changed <- struct{}{}:
	default: // the last change has not been looked at yet
	}
}

// Changed returns a channel that gets a value after the addresses have changed, one for several
// changes. A change may be missed, so List is to be asked now and then.
func (a *Addresses) Changed() <-chan struct{} { return a.changed }

// ErrInterrupted says that addresses changed while they were listed; the news of that bring another look.
var ErrInterrupted = netlink.ErrDumpInterrupted

// List returns the present addresses, sorted, tentative ones (RFC 4862 section 5.4) included.
func (a *Addresses) List() ([]netip.Addr, error) {
	link := &netlink.Dummy{LinkAttrs: netlink.LinkAttrs{Index: a.index}}
	all, err := a.handle.AddrList(link, netlink.FAMILY_ALL)
	if err != nil && !errors.Is(err, ErrInterrupted) {
		return nil, err
	}
	var list []netip.Addr
	for _, one := range all {
		if ip, ok := netip.AddrFromSlice(one.IP); ok {
			list = append(list, ip.Unmap())
		}
	}
	slices.SortFunc(list, netip.Addr.Compare)
	return slices.Compact(list), err
}

// Close ends it.
func (a *Addresses) Close() error {
	a.once.Do(func() { a.end(); a.handle.Close() })
	return nil
}
