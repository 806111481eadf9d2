package soak

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"tapsec/internal/lab/rig"
	"tapsec/internal/netns"
	"tapsec/wire"
)

// cable is the wire between the two programs. It sees each frame as it leaves a
// program, judges it, keeps some for the attacker, and hands it on: to the TAP of
// host b's program, or to line0, on which host a's program has its packet socket.
// What the attacker makes goes in after that.
type cable struct {
	c     *campaign
	line  *os.File    // the program's side of line0
	b     *rig.Socket // the kernel's side of wire0
	moved [2]uint64   // by sending host; each belongs to its goroutine

	mu   sync.Mutex
	kept [2]store // frames on the way from each host
}

const (
	lineName = "line0"
	wireName = "wire0"
	hostName = "host0" // between NIC and transport, where they are two
	queue    = 10000   // frames that wait at each interface, so that a busy machine loses none
)

func newCable(c *campaign) (w *cable, err error) {
	w = &cable{c: c}
	if w.line, err = openTAP(lineName); err != nil {
		return nil, err
	}
	if err := errors.Join(netns.AddTAP(wireName, false), netns.AddTAP(hostName, false)); err != nil {
		return nil, err
	}
	for _, name := range []string{lineName, wireName, hostName} {
		if err := errors.Join(netns.SetMTU(name, 1500), netns.SetQueueLength(name, queue), netns.Up(name)); err != nil {
			return nil, err
		}
	}
	if w.b, err = rig.OpenSocket(wireName); err != nil {
		return nil, err
	}
	w.c.work.Go(w.fromA)
	w.c.work.Go(w.fromB)
	return w, nil
}

// openTAP makes a TAP and returns the program's side of it.
func openTAP(name string) (*os.File, error) {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open /dev/net/tun: %w", err)
	}
	request, err := unix.NewIfreq(name)
	if err == nil {
		request.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI)
		err = unix.IoctlIfreq(fd, unix.TUNSETIFF, request)
	}
	if err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("make TAP %s: %w", name, err)
	}
	return os.NewFile(uintptr(fd), name), nil
}

// close ends the two goroutines.
func (w *cable) close() error { return errors.Join(w.line.Close(), w.b.Close()) }

func (w *cable) fromA() {
	frame := make([]byte, 1<<16)
	for {
		n, err := w.line.Read(frame)
		switch {
		case err == nil:
			w.pass(0, frame[:n])
		case w.c.over():
			return
		default: // line0 is down
			time.Sleep(time.Millisecond)
		}
	}
}

func (w *cable) fromB() {
	for {
		frame, err := w.b.Receive(time.Minute)
		switch {
		case err == nil:
			w.pass(1, frame)
		case w.c.over():
			return
		default: // wire0 is down
			time.Sleep(time.Millisecond)
		}
	}
}

func (w *cable) pass(from int, frame []byte) {
	w.moved[from]++
	w.judge(from, frame)
	w.mu.Lock()
	w.kept[from].keep(frame, w.c.attacker.random)
	w.mu.Unlock()
	w.put(from, frame)
}

// put gives a frame to the other host's program. What a link refuses because it is
// down is lost, as on any wire.
func (w *cable) put(from int, frame []byte) {
	if from == 0 {
		_ = w.b.Send(frame)
	} else {
		_, _ = w.line.Write(frame)
	}
}

// judge checks a frame that a program put on the wire: nothing between the hosts'
// addresses is in clear, and no number and no IV occurs twice.
func (w *cable) judge(from int, frame []byte) {
	etherType, at, ok := wire.Ethernet(frame)
	if etherType == etherARP {
		return
	}
	p, valid := wire.Addresses(frame, at)
	switch {
	case !ok || !valid:
		w.c.violate("wire", "%s put a frame on the wire that is no IP: %x", hostNames[from], frame[:min(len(frame), 80)])
	case p.Proto == wire.ProtoESP && p.Later: // the first fragment has the number
	case p.Proto == wire.ProtoESP:
		w.sealed(from, frame, &p)
	case !linkLocal(frame, &p):
		w.c.violate("clear", "%s put a packet on the wire in clear: %s > %s, protocol %d: %x", hostNames[from], p.Src, p.Dst, p.Proto, frame[:min(len(frame), 80)])
	}
}

const etherARP = 0x0806

// linkLocal reports whether a packet stays on the link and need not be protected
// (RFC 4301 section 5, RFC 4861).
func linkLocal(frame []byte, p *wire.Packet) bool {
	if p.Dst.IsMulticast() || p.Dst.IsLinkLocalUnicast() || p.Src.IsLinkLocalUnicast() || p.Dst == netip.AddrFrom4([4]byte{255, 255, 255, 255}) {
		return true
	}
	const hopLimitAt, first, last = 7, 133, 137
	return p.Proto == wire.ProtoICMPv6 && p.Header < len(frame) && frame[p.Start+hopLimitAt] == 255 && frame[p.Header] >= first && frame[p.Header] <= last
}

// sealed judges an ESP packet and, if it is the nested path's tunnel, the packet
// inside.
func (w *cable) sealed(from int, packet []byte, p *wire.Packet) {
	const spiAndNumber = 8
	if p.Reach-p.Header < spiAndNumber+16 {
		w.c.violate("wire", "%s put an ESP packet of %d bytes on the wire", hostNames[from], p.Reach-p.Header)
		return
	}
	esp := packet[p.Header:p.Reach]
	spi, number := binary.BigEndian.Uint32(esp), binary.BigEndian.Uint32(esp[4:])
	s := w.c.sas.find(spi)
	if s == nil || s.from != from {
		w.c.violate("wire", "%s sealed with SPI %#x, which is none of its SAs", hostNames[from], spi)
		return
	}
	s.mu.Lock()
	fresh := s.numbers.add(uint64(number))
	var iv []byte
	var known bool
	if len(s.integrity) == 0 { // counter mode: 8 bytes, usually a counter
		iv = esp[spiAndNumber : spiAndNumber+8]
		known = !s.ivs.add(binary.BigEndian.Uint64(iv))
	} else {
		iv = esp[spiAndNumber : spiAndNumber+aes.BlockSize]
		_, known = s.random[string(iv)]
		s.random[string(iv)] = struct{}{}
	}
	s.mu.Unlock()
	if !fresh {
		w.c.violate("number", "%s sent number %d of %s for the second time", hostNames[from], number, s.name)
	}
	if known {
		w.c.violate("iv", "%s sent IV %x of %s for the second time, number %d", hostNames[from], iv, s.name, number)
	}
	if s.layer.tunnel && len(paths[s.line.path].layers) > 1 && !p.Fragment {
		w.inside(from, s, esp)
	}
}

// inside opens the nested path's tunnel (AES-GCM, RFC 4106) and judges its
// content.
func (w *cable) inside(from int, s *association, esp []byte) {
	const saltLen, ivLen = 4, 8
	block, err := aes.NewCipher(s.key[:len(s.key)-saltLen])
	if err != nil {
		panic("soak: " + err.Error())
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		panic("soak: " + err.Error())
	}
	nonce := append(bytes.Clone(s.key[len(s.key)-saltLen:]), esp[8:8+ivLen]...)
	plain, err := aead.Open(nil, nonce, esp[8+ivLen:], esp[:8])
	if err != nil {
		w.c.violate("wire", "%s put a packet of %s on the wire that does not open", hostNames[from], s.name)
		return
	}
	p, ok := wire.Addresses(plain, 0)
	switch {
	case !ok:
		w.c.violate("wire", "%s: no packet inside: %x", s.name, plain[:min(len(plain), 40)])
	case p.Proto == wire.ProtoESP && !p.Later: // its SA was not dropped
		w.sealed(from, plain, &p)
	}
}
