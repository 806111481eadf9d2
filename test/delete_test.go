package test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"tapsec/control"
	"tapsec/internal/lab/forge"
	"tapsec/internal/lab/rig"
	"tapsec/internal/outbound"
	"tapsec/sa"
	"tapsec/status"
	"tapsec/test/program"
)

// stream is the frames of one SA, numbered from 1, of which a window is under way.
type stream struct {
	t          *testing.T
	sealer     *outbound.Sealer
	wire       port
	receive    func(number uint64) // the next one, which has this number
	sent, came uint64
}

const underWay = 32

func (s *stream) send() {
	s.sent++
	s.wire.send(framed(sealed(s.t, s.sealer, plain(server, s.sent, 100))))
	if s.sent-s.came == underWay {
		s.next()
	}
}

func (s *stream) next() {
	s.came++
	s.receive(s.came)
}

// through sends while a change is asked for, and a while longer. It returns the
// number of the first frame that was sent after the answer, once all have come.
func (s *stream) through(change func() error) (after uint64) {
	s.t.Helper()
	const more = 300
	answered := make(chan error, 1)
	for range more {
		s.send()
	}
	go func() { answered <- change() }()
	for after == 0 || s.sent < after+more {
		select {
		case err := <-answered:
			if err != nil {
				s.t.Fatal(err)
			}
			after = s.sent + 1
		default:
		}
		s.send()
	}
	for s.came < s.sent {
		s.next()
	}
	return after
}

// TestDeleteInFlight: SAs go and come over the control socket while their frames are
// under way (contract row 27). Each frame comes out, in its place, on the SA as it was
// or left alone. What is sent after a delete's answer is not verified with the SA, and
// what is sent after an add's answer is.
func TestDeleteInFlight(t *testing.T) {
	rig.Require(t)
	for _, engine := range []string{"auto", "plain"} {
		t.Run(engine, func(t *testing.T) {
			socket := filepath.Join(sockets(t), "nic")
			p := start(t, write(t, moreSAs), "--control", socket, "--engine", engine)
			client, err := control.Dial(socket)
			if err != nil {
				t.Fatal(err)
			}
			web, host := sasOf(t, moreSAs)["web"], listen(t, "host0")
			var verified []bool // by number
			s := &stream{t: t, sealer: sealer(t, web), wire: listen(t, "wire0"), receive: func(number uint64) {
				body, trailer := host.delivered()
				if got := binary.BigEndian.Uint32(body[14+20+4:]); uint64(got) != number {
					t.Fatalf("frame %d came in the place of %d", got, number)
				}
				good := trailer.Word == 2 && trailer.Reason == status.Verified
				if !good && (trailer.Word != 0 || trailer.Reason != status.SADeleted) {
					t.Fatalf("frame %d is %s, %s", number, trailer.Word, trailer.Reason)
				}
				verified = append(verified, good)
			}}
			for range 5 {
				begun := len(verified)
				after := s.through(func() error { return client.Delete(control.Ref{Name: "web"}, false) })
				once(t, verified[begun:], int(after)-begun-1, true)
				begun = len(verified)
				after = s.through(func() error {
					_, err := client.Add([]*sa.SA{web})
					return err
				})
				once(t, verified[begun:], int(after)-begun-1, false)
			}
			program.Await(t, "each frame is counted", func() bool {
				var nic struct{ Reasons map[string]uint64 }
				if err := client.Get("nic", &nic); err != nil {
					t.Fatal(err)
				}
				good := uint64(0)
				for _, v := range verified {
					if v {
						good++
					}
				}
				return nic.Reasons[status.Verified.String()] == good && nic.Reasons[status.SADeleted.String()] == s.sent-good
			})
			p.stop()
		})
	}
}

// once checks that frames were of one kind, and of the other from some frame on, which
// is not one of those that were sent after the answer.
func once(t *testing.T, verified []bool, answered int, first bool) {
	t.Helper()
	change := slices.Index(verified, !first)
	if change < 0 || change > answered || slices.Contains(verified[max(change, 0):], first) {
		t.Fatalf("verified at first: %t, then otherwise from frame %d of %d on, and the answer came before frame %d", first, change, len(verified), answered)
	}
}

// TestDeleteFromNICInFlight: the transport goes on in software with an SA that is
// deleted from the NIC under traffic (contract, Lifecycle): each packet is delivered
// once and in its place, also where a reload gives the SA back to the NIC.
func TestDeleteFromNICInFlight(t *testing.T) {
	rig.Require(t)
	socket := filepath.Join(sockets(t), "nic")
	p := start(t, write(t, ourServer), "--transport", "stack0", "--control", socket)
	client, err := control.Dial(socket)
	if err != nil {
		t.Fatal(err)
	}
	stack := listen(t, "stack0")
	s := &stream{t: t, sealer: sealer(t, sasOf(t, moreSAs)["web"]), wire: listen(t, "wire0"), receive: func(number uint64) {
		if got, want := stack.next(), framed(plain(server, number, 100)); !bytes.Equal(got, want) {
			t.Fatalf("packet %d: got\n%x, want\n%x", number, got, want)
		}
	}}
	for range 5 {
		s.through(func() error { return client.Delete(control.Ref{Name: "web"}, true) })
		s.through(func() error {
			defer p.waitLog("msg=reloaded")
			return p.cmd.Process.Signal(unix.SIGHUP)
		})
	}
	p.stop()
}

// between stands between a transport and the control socket of its NIC, and remembers
// what the NIC held when each delete came.
type between struct {
	client *control.Client
	proxy  httputil.ReverseProxy

	mu   sync.Mutex
	told []string
}

func standBetween(t *testing.T, socket string) (b *between, path string) {
	t.Helper()
	client, err := control.Dial(socket)
	if err != nil {
		t.Fatal(err)
	}
	b = &between{client: client, proxy: httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) { r.Out.URL.Scheme, r.Out.URL.Host = "http", "tapsec" },
		Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", socket)
		}},
	}}
	path = socket + "-between"
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: b}
	go s.Serve(l)
	t.Cleanup(func() { s.Close() })
	return b, path
}

func (b *between) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method == http.MethodPost {
		body, err := io.ReadAll(r.Body)
		held, why := b.held()
		b.mu.Lock()
		b.told = append(b.told, fmt.Sprintf("%s %s of %s", r.URL.Path, spiIn(string(body)), held))
		b.mu.Unlock()
		if err = errors.Join(err, why); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
	}
	b.proxy.ServeHTTP(w, r)
}

// spiIn is the SPI that a request names.
func spiIn(body string) string {
	_, rest, _ := strings.Cut(body, `"spi":"`)
	spi, _, _ := strings.Cut(rest, `"`)
	return spi
}

// held names what the NIC holds.
func (b *between) held() (names []string, err error) {
	for s, err := range b.client.All() {
		if err != nil {
			return nil, err
		}
		if s.Offloaded {
			names = append(names, s.Name)
		}
	}
	return names, nil
}

func (b *between) requests() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.told)
}

// TestTransportGivesBack: a NIC that is full asks with each frame (contract row 26) and
// removes nothing. A transport beside it answers with two deletes, for the inbound SA
// and for the outbound one that belongs to it (contract, Lifecycle), and goes on in
// software.
func TestTransportGivesBack(t *testing.T) {
	rig.Require(t)
	socket, config := filepath.Join(sockets(t), "nic"), write(t, "sa_capacity: 2\n"+atHome)
	n := start(t, config, "--control", socket)
	b, path := standBetween(t, socket)
	wire, host := listen(t, "wire0"), listen(t, "host0")
	s, number := sealer(t, sasOf(t, atHome)["to-us"]), uint64(0)
	send := func() []byte {
		number++
		packet := forge.UDP(nil, netip.MustParseAddrPort(source), netip.MustParseAddrPort("192.0.2.2:9"), binary.BigEndian.AppendUint64(nil, number))
		wire.send(framed(sealed(t, s, packet)))
		return framed(packet)
	}
	for range 200 {
		send()
		if _, trailer := host.delivered(); trailer.Word != 3 || !trailer.Records[0].DeleteSA {
			t.Fatalf("a full NIC says %s", trailer.Word)
		}
	}
	if held, err := b.held(); err != nil || len(held) != 2 {
		t.Fatalf("nobody answered, and the NIC holds %v, %v", held, err)
	}
	p := startTransport(t, config, "--in", "host0", "--out", "stack0", "--nic", path)
	stack := listen(t, "stack0")
	program.Await(t, "two deletes", func() bool {
		if want, got := send(), stack.next(); !bytes.Equal(got, want) {
			t.Fatalf("got\n%x, want\n%x", got, want)
		}
		held, err := b.held()
		return err == nil && len(held) == 0
	})
	for range 200 {
		if want, got := send(), stack.next(); !bytes.Equal(got, want) {
			t.Fatalf("in software: got\n%x, want\n%x", got, want)
		}
	}
	inbound, outbound := "/delete 0x0000d002 of [to-peer to-us]", "/delete 0x0000d001 of [to-peer]"
	if told := b.requests(); told[0] != inbound || !slices.Contains(told, outbound) {
		t.Errorf("the NIC was told\n%q, expected\n%q and\n%q", told, inbound, outbound)
	}
	p.stop()
	n.stop()
}
