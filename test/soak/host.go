package soak

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"tapsec/internal/lab/forge"
	"tapsec/internal/lab/rig"
	"tapsec/internal/netns"
	"tapsec/wire"
)

var hostNames = [2]string{"a", "b"}

const (
	stackName = "stack0"
	movedName = "moved0"
	stackMTU  = 1400
)

// host is one of the two hosts: a plain stack in a namespace of its own, behind the
// TAP stack0.
type host struct {
	c      *campaign
	number int
	ns     *netns.Namespace
	stack  atomic.Pointer[rig.Socket] // the kernel's side of stack0: what we send is what the stack sends
	sink   net.PacketConn
	large  *net.UDPConn // sends what the kernel has to fragment

	sending sync.Mutex // held while datagrams are being sent
	turn    int        // of the paths
}

func newHost(c *campaign, number int) (h *host, err error) {
	h = &host{c: c, number: number}
	if h.ns, err = netns.New(hostNames[number]); err != nil {
		return nil, err
	}
	if err := h.plug(); err != nil {
		return nil, err
	}
	err = h.ns.Do(func() (err error) {
		if h.sink, err = net.ListenPacket("udp", fmt.Sprintf("[::]:%d", soakPort)); err != nil {
			return err
		}
		h.large, err = net.ListenUDP("udp", nil)
		return err
	})
	if err != nil {
		return nil, err
	}
	c.work.Go(h.watch)
	c.work.Go(h.drain)
	c.work.Go(h.send)
	return h, nil
}

// plug makes stack0, and the socket on it.
func (h *host) plug() error {
	return h.ns.Do(func() error {
		err := errors.Join(netns.AddTAP(stackName, false), netns.SetMTU(stackName, stackMTU), netns.SetQueueLength(stackName, queue),
			rig.SetMAC(stackName, mac(h.number)), netns.Up(stackName), h.address())
		if err != nil {
			return err
		}
		stack, err := rig.OpenSocket(stackName)
		if err == nil {
			err = stack.Apart()
		}
		if old := h.stack.Swap(stack); old != nil {
			err = errors.Join(err, old.Close())
		}
		return err
	})
}

func (h *host) close() error {
	return errors.Join(h.stack.Load().Close(), h.sink.Close(), h.large.Close(), h.ns.Close())
}

func mac(number int) net.HardwareAddr { return net.HardwareAddr{2, 0, 0, 0, 0, byte(number + 1)} }

// ethernet frames a packet that a host sends to the other.
func ethernet(from int, packet []byte) []byte {
	frame := forge.AppendFrame(nil, packet)
	copy(frame, mac(1-from))
	copy(frame[6:], mac(from))
	return frame
}

// address gives stack0 the addresses that it lacks; it is called in the namespace.
func (h *host) address() error {
	var all error
	for _, a := range addresses(h.number) {
		if err := netns.Address(stackName, a); !errors.Is(err, unix.EEXIST) {
			all = errors.Join(all, err)
		}
	}
	return all
}

// mend restores stack0: its name, up, with all addresses.
func (h *host) mend() {
	err := h.ns.Do(func() error {
		if _, err := net.InterfaceByName(movedName); err == nil {
			if rig.Rename(movedName, stackName) != nil { // a kernel that renames only interfaces that are down
				if err := errors.Join(rig.Down(movedName), rig.Rename(movedName, stackName)); err != nil {
					return err
				}
			}
		}
		return errors.Join(netns.Up(stackName), h.address())
	})
	if err != nil {
		h.c.violate("laboratory", "%s cannot be mended: %v", stackName, err)
	}
}

// drain reads what arrives at the stack's socket, so that no port counts as closed.
func (h *host) drain() {
	for b := make([]byte, 1<<16); ; {
		if _, _, err := h.sink.ReadFrom(b); err != nil && h.c.over() {
			return
		}
	}
}

// watch judges each frame that the stack gets.
func (h *host) watch() {
	for {
		frame, err := h.stack.Load().Receive(time.Minute)
		switch {
		case err == nil:
			h.judge(frame)
		case h.c.over():
			return
		default: // stack0 is down, or another one
			time.Sleep(time.Millisecond)
		}
	}
}

func (h *host) judge(frame []byte) {
	etherType, at, _ := wire.Ethernet(frame)
	p, ok := wire.Addresses(frame, at)
	switch {
	case etherType == etherARP:
	case !ok:
		h.c.violate("stack", "%s got a frame that is no IP: %x", hostNames[h.number], frame[:min(len(frame), 80)])
	case linkLocal(frame, &p):
	case p.Src != h.peer(p.Src) || !protected(p.Dst):
		h.c.violate("stack", "%s got a packet from %s to %s, protocol %d", hostNames[h.number], p.Src, p.Dst, p.Proto)
	case p.Fragment: // of a datagram that is judged once it is whole, or of none
		h.c.fragments.Add(1)
	case p.Proto == wire.ProtoUDP:
		h.datagram(frame, &p)
	case p.Proto == wire.ProtoESP && h.nested(frame, &p):
	case p.Proto != protoTCP && p.Proto != wire.ProtoICMP && p.Proto != wire.ProtoICMPv6:
		h.c.violate("stack", "%s got a packet from %s of protocol %d", hostNames[h.number], p.Src, p.Proto)
	}
}

const protoTCP = 6

// nested reports whether a packet is the inner one of the nested path, which a host
// passes on once it has neither its SA nor its address (contract, The transport,
// 2).
func (h *host) nested(frame []byte, p *wire.Packet) bool {
	if p.Reach-p.Header < 4 {
		return false
	}
	s := h.c.sas.find(binary.BigEndian.Uint32(frame[p.Header:]))
	return s != nil && s.from != h.number && len(paths[s.line.path].layers) > 1 && !s.layer.tunnel
}

// peer returns the address if it is one of the other host's.
func (h *host) peer(a netip.Addr) netip.Addr {
	for _, p := range addresses(1 - h.number) {
		if p.Addr() == a {
			return a
		}
	}
	return netip.Addr{}
}

func (h *host) datagram(frame []byte, p *wire.Packet) {
	if p.Reach-p.Header < wire.UDPLen {
		h.c.violate("altered", "%s got a UDP datagram of %d bytes", hostNames[h.number], p.Reach-p.Header)
		return
	}
	l, number, wrong := read(frame[p.Header+wire.UDPLen : p.Reach])
	switch {
	case wrong != "":
		h.c.violate("altered", "%s got a datagram that %s", hostNames[h.number], wrong)
	case l.from == h.number || p.Src != paths[l.path].addr(l.path, l.from):
		h.c.violate("altered", "%s got a datagram of %s from %s", hostNames[h.number], l, p.Src)
	default:
		if wrong := h.c.ledgers[l].arrive(number); wrong != "" {
			h.c.violate("arrival", "datagram %d of %s %s", number, l, wrong)
		}
	}
}

const (
	sendEvery = 10 * time.Millisecond
	perTick   = 3  // datagrams
	atMost    = 24 // datagrams, while something is wrong
	burst     = 64 // datagrams, now and then
)

// send sends datagrams on all paths until the campaign ends, some of them in
// bursts, a few so large that the kernel cuts them.
func (h *host) send() {
	for n, tick := 0, time.NewTicker(sendEvery); ; n++ {
		select {
		case <-h.c.done:
			tick.Stop()
			return
		case <-tick.C:
		}
		count := perTick
		if n%128 == 0 {
			count = burst
		} else if h.c.disturbed.Load() {
			count = n * 7919 % atMost
		}
		h.burst(count, n%16 == 0)
	}
}

// burst sends that many datagrams, the first of them perhaps large.
func (h *host) burst(count int, large bool) {
	h.sending.Lock()
	defer h.sending.Unlock()
	for i := range count {
		h.one(line{h.turn % len(paths), h.number}, large && i == 0)
		h.turn++
	}
}

// push sends more datagrams on one line.
func (h *host) push(l line, count int, large bool) {
	h.sending.Lock()
	defer h.sending.Unlock()
	for range count {
		h.one(l, large)
	}
}

// one sends one datagram.
func (h *host) one(l line, large bool) {
	p := &paths[l.path]
	src, dst := netip.AddrPortFrom(p.addr(l.path, l.from), soakPort), netip.AddrPortFrom(p.addr(l.path, 1-l.from), soakPort)
	number, done := h.c.ledgers[l].send()
	if large {
		h.c.ledgers[l].cut(number)
		_, err := h.large.WriteToUDPAddrPort(datagram(l, number, largeLen), dst)
		done(err)
		return
	}
	length := headLen + int(number*7919%(maxLen-headLen))
	done(h.stack.Load().Send(ethernet(h.number, forge.UDP(nil, src, dst, datagram(l, number, length)))))
}
