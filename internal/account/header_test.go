package account_test

import (
	"fmt"
	"net/netip"
	"testing"

	"tapsec/internal/account"
	"tapsec/internal/lab/forge"
	"tapsec/pipeline"
	"tapsec/sa"
	"tapsec/status"
	"tapsec/wire"
)

var spiAndNumber = []byte{0, 0, 0x10, 1, 0, 0, 0, 7}

// packet is one of IPv4.
func packet(src, dst netip.Addr, proto uint8, payload []byte) []byte {
	b := []byte{0x45, 0, 0, byte(20 + len(payload)), 0, 0, 0, 0, 64, proto, 0, 0}
	return append(append(append(b, src.AsSlice()...), dst.AsSlice()...), payload...)
}

func esp(src, dst netip.Addr) []byte {
	return packet(src, dst, wire.ProtoESP, append(spiAndNumber[:8:8], make([]byte, 40)...))
}

// A header that no SA matches is read from the packet at which the NIC stopped.
func TestUnmatched(t *testing.T) {
	inner, innermost := netip.MustParseAddr("10.1.0.1"), netip.MustParseAddr("10.2.0.2")
	direct := forge.AppendFrame(nil, esp(here, there))
	inUDP := forge.AppendFrame(nil, forge.UDP(nil, netip.AddrPortFrom(here, 4500), netip.AddrPortFrom(there, 4500), append(spiAndNumber[:8:8], make([]byte, 40)...)))
	ah := forge.AppendFrame(nil, packet(here, there, wire.ProtoAH, append([]byte{4, 4, 0, 0}, append(spiAndNumber[:8:8], make([]byte, 40)...)...)))
	within := esp(inner, innermost)
	tunnelled := forge.AppendFrame(nil, packet(here, there, wire.ProtoESP, append(make([]byte, 16), within...)))
	opened := status.Record{Portion: status.TunnelPortion, State: status.ICVValid, Payload: 14 + 20 + 16, PayloadLen: uint16(len(within))}
	ofAH := status.Record{Portion: status.TunnelPortion, State: status.ICVValid, Payload: 14 + 20, PayloadLen: uint16(len(within) + 16)}
	want := account.Header{Protocol: sa.ESP, SPI: 0x1001, Src: here, Dst: there}
	wantInner := want
	wantInner.Src, wantInner.Dst = inner, innermost
	wantUDP, wantAH := want, want
	wantUDP.Encap, wantAH.Protocol = true, sa.AH
	for name, c := range map[string]struct {
		frame   []byte
		trailer status.Trailer
		records []status.Record
		want    account.Header
		ok      bool
	}{
		"alone":                {direct, status.Trailer{Reason: status.NoSA}, nil, want, true},
		"in UDP":               {inUDP, status.Trailer{Reason: status.UDPNoSA}, nil, wantUDP, true},
		"AH":                   {ah, status.Trailer{Reason: status.SADeleted}, nil, wantAH, true},
		"in a tunnel":          {tunnelled, status.Trailer{Reason: status.AddressMismatch}, []status.Record{opened}, wantInner, true},
		"in one under AH":      {tunnelled, status.Trailer{Reason: status.EncapMismatch}, []status.Record{ofAH, opened}, wantInner, true},
		"taken out":            {forge.AppendFrame(nil, within), status.Trailer{Reason: status.NoSA, Form: status.Decap}, []status.Record{opened}, wantInner, true},
		"another reason":       {direct, status.Trailer{Reason: status.NoIPsec}, nil, account.Header{}, false},
		"not an IP packet":     {direct[:13], status.Trailer{Reason: status.NoSA}, nil, account.Header{}, false},
		"a tunnel of no bytes": {tunnelled, status.Trailer{Reason: status.NoSA}, []status.Record{{Payload: 50}}, account.Header{}, false},
	} {
		for _, r := range c.records {
			c.trailer.Add(r)
		}
		f := account.FrameOf(c.frame, &c.trailer, here, there, 0)
		h, seq, numbered, ok := f.Header, f.Number, f.HeaderIsNumbered, f.Unmatched
		if ok != c.ok || h != c.want || numbered != c.ok || c.ok && seq != 7 {
			t.Errorf("%s: %+v, %d, %t, %t", name, h, seq, numbered, ok)
		}
	}
}

// An SA that names no source has the addresses of its own packets, also inside a tunnel.
func TestAddressesOfInner(t *testing.T) {
	inner, innermost := netip.MustParseAddr("10.1.0.1"), netip.MustParseAddr("10.2.0.2")
	within := esp(inner, innermost)
	inPlace := forge.AppendFrame(nil, packet(here, there, wire.ProtoESP, append(make([]byte, 16), within...)))
	for form, body := range map[status.Form][]byte{status.InPlace: inPlace, status.Decap: forge.AppendFrame(nil, within)} {
		a := account.New([]pipeline.Holding{
			{SA: &sa.SA{Name: "outer", Protocol: sa.ESP, Dst: there}, Handle: 1},
			{SA: &sa.SA{Name: "inner", Protocol: sa.ESP, Dst: innermost}, Handle: 2},
		})
		trailer := status.Trailer{Form: form}
		trailer.Add(status.Record{Handle: 1, State: status.ICVValid, IP: 14, Number: 1})
		trailer.Add(status.Record{Handle: 2, State: status.ICVValid, IP: 50, Number: 1})
		f := account.FrameOf(body, &trailer, here, there, 0)
		a.Frame(&f)
		rows, _ := a.Rows()
		got := ""
		for _, r := range rows {
			got += r.SA + " " + r.Src + " > " + r.Dst + "; "
		}
		if want := fmt.Sprintf("outer %s > %s; inner %s > %s; ", here, there, inner, innermost); got != want {
			t.Errorf("%v: %s, want %s", form, got, want)
		}
	}
}

// What is cut off is not made up.
func TestHeaderCutOff(t *testing.T) {
	whole := forge.AppendFrame(nil, esp(here, there))
	for n, want := range map[int][2]bool{14 + 20 + 3: {false, false}, 14 + 20 + 4: {true, false}, 14 + 20 + 7: {true, false}, 14 + 20 + 8: {true, true}} {
		p, _ := wire.Addresses(whole[:n], 14)
		h, _, numbered, ok := account.HeaderOf(whole[:n], &p)
		if ok != want[0] || numbered != want[1] || ok && h.SPI != 0x1001 {
			t.Errorf("%d bytes: %+v, %t, %t", n, h, numbered, ok)
		}
	}
}
