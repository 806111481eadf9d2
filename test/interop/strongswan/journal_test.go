package strongswan

import (
	"bytes"
	"encoding/binary"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"tapsec/internal/lab/rig"
	"tapsec/sa"
	"tapsec/test/program"
)

// journal is what is heard from a to b in three places, and back in two.
type journal struct {
	mu  sync.Mutex
	now record
	all map[uint32]bool // SPIs met on the wire
}

// record is a part of a journal, in order.
type record struct {
	sent [][]byte // packets that a's stack gives to charon
	wire []frame  // frames that a gives to the wire
	host [][]byte // frames that tapsec gives to b

	back     [][]byte // frames that b gives to the host TAP
	returned [][]byte // frames that tapsec gives to a
}

// count is how many frames of an SA are on the wire.
func (r *record) count(spi uint32) (n int) {
	for _, f := range r.wire {
		if f.kind == esp && f.spi == spi {
			n++
		}
	}
	return n
}

// frame is a frame on the wire, looked at with another eye than tapsec's.
type frame struct {
	bytes []byte
	kind  kind
	spi   uint32
	seq   uint32
}

type kind int

const (
	other kind = iota // IKE on port 500, neighbour discovery
	arp
	ike // behind the non-ESP marker of RFC 3948
	keepAlive
	esp
)

func newFrame(b []byte) frame {
	f := frame{bytes: b}
	p := gopacket.NewPacket(b, layers.LayerTypeEthernet, gopacket.NoCopy)
	if p.Layer(layers.LayerTypeARP) != nil {
		f.kind = arp
	}
	udp, ok := p.Layer(layers.LayerTypeUDP).(*layers.UDP)
	if !ok || udp.DstPort != sa.EncapPort {
		return f
	}
	switch in := udp.Payload; {
	case len(in) == 1:
		f.kind = keepAlive
	case bytes.HasPrefix(in, []byte{0, 0, 0, 0}):
		f.kind = ike
	case len(in) >= 8:
		f.kind, f.spi, f.seq = esp, binary.BigEndian.Uint32(in), binary.BigEndian.Uint32(in[4:])
	}
	return f
}

// listen begins a journal.
func listen(t *testing.T, a, b *host) *journal {
	t.Helper()
	j := &journal{all: map[uint32]bool{}}
	from := func(h *host) func([]byte) bool {
		mac := h.mac(t)
		return func(b []byte) bool { return bytes.Equal(b[6:12], mac) }
	}
	fromA, fromB := from(a), from(b)
	ear(t, &j.mu, a, "ipsec0", func(packet []byte) {
		if a.owns(source(packet)) {
			j.now.sent = append(j.now.sent, packet)
		}
	})
	ear(t, &j.mu, a, a.link, func(b []byte) {
		if !fromA(b) {
			j.now.returned = append(j.now.returned, b)
			return
		}
		f := newFrame(b)
		j.now.wire = append(j.now.wire, f)
		j.all[f.spi] = true
	})
	ear(t, &j.mu, b, b.link, func(b []byte) {
		if fromB(b) {
			j.now.back = append(j.now.back, b)
		} else {
			j.now.host = append(j.now.host, b)
		}
	})
	return j
}

// ear hands on what is heard on an interface, one after the other.
func ear(t *testing.T, mu *sync.Mutex, h *host, link string, note func([]byte)) {
	t.Helper()
	var s *rig.Socket
	if err := h.ns.Do(func() (err error) {
		if s, err = rig.Overhear(link); err == nil {
			err = s.Apart()
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			b, err := s.Receive(time.Hour)
			if err != nil {
				return
			}
			b = bytes.Clone(b)
			mu.Lock()
			note(b)
			mu.Unlock()
		}
	}()
	t.Cleanup(func() { s.Close(); <-done })
}

// saw tells whether a frame with that SPI has been on the wire.
func (j *journal) saw(spi uint32) bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.all[spi]
}

// settle waits until each packet sent is on the wire, and each frame of either
// side on the other, and takes the record so far.
func (j *journal) settle(t *testing.T) record {
	t.Helper()
	var r record
	for deadline := time.Now().Add(program.Patience); ; time.Sleep(5 * time.Millisecond) {
		j.mu.Lock()
		sealed := 0
		for _, f := range j.now.wire {
			if f.kind == esp {
				sealed++
			}
		}
		r = j.now
		settled := len(r.sent) == sealed && len(r.wire) == len(r.host) && len(r.back) == len(r.returned)
		if settled {
			j.now = record{}
		}
		j.mu.Unlock()
		if settled {
			return r
		}
		if time.Now().After(deadline) {
			t.Fatalf("within %s: a sent %d packets, of which %d are on the wire; of %d frames there %d are at the host; of %d frames back %d",
				program.Patience, len(r.sent), sealed, len(r.wire), len(r.host), len(r.back), len(r.returned))
		}
	}
}

// source is the source address of an IP packet.
func source(packet []byte) netip.Addr {
	at, n := 12, net.IPv4len
	if len(packet) > 0 && packet[0]>>4 == 6 {
		at, n = 8, net.IPv6len
	}
	if len(packet) < at+n {
		return netip.Addr{}
	}
	addr, _ := netip.AddrFromSlice(packet[at : at+n])
	return addr
}
