package pipeline_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"tapsec/internal/lab/forge"
	"tapsec/internal/outbound"
	"tapsec/pipeline"
	"tapsec/sa"
	"tapsec/status"
	"tapsec/test/testkit"
)

// draw makes scenarios: SAs that often share SPIs, a frame that some of them
// sealed, damage inside and outside, and a NIC that holds some of them, perhaps
// altered.
type draw struct{ *rand.Rand }

func (d draw) oneIn(n int) bool { return d.IntN(n) == 0 }

func pick[T any](d draw, from ...T) T { return from[d.IntN(len(from))] }

// sa draws an SA. SPI, and what follows from it, come from a short list.
func (d draw) sa(protocol sa.Protocol, mode sa.Mode, six bool) *sa.SA {
	n := d.IntN(3)
	s := &sa.SA{Protocol: protocol, Mode: mode, SPI: 0x1001 + uint32(n), Src: host4a, Dst: host4b, PadCheck: !d.oneIn(3)}
	if mode == sa.Tunnel && !d.oneIn(3) {
		s.Src, s.Dst = gw4a, gw4b
	}
	if six {
		v6(s)
	}
	if protocol == sa.AH {
		testkit.Suite([]string{"sha256", "sha256_96", "sha256"}[n])(s)
	} else {
		testkit.Suite([]string{"aes128gcm16", "aes128-sha256", "null-sha256"}[n])(s)
		s.Encap = d.oneIn(4)
	}
	if s.ESN = n == 2; s.ESN {
		s.SeqHigh = 2
	}
	s.Name = fmt.Sprintf("%s-%s-%d", protocol, mode, d.Uint64())
	return s
}

// stack draws SAs to seal with, innermost first.
func (d draw) stack(six bool) (stack []*sa.SA) {
	for range 1 + d.IntN(3) {
		mode := pick(d, sa.Transport, sa.Tunnel)
		if mode == sa.Tunnel {
			six = d.oneIn(2)
		}
		switch d.IntN(4) {
		case 0:
			stack = append(stack, d.sa(sa.AH, mode, six))
		case 1:
			e, a := d.sa(sa.ESP, mode, six), d.sa(sa.AH, mode, six)
			e.Encap, a.Src, a.Dst = false, e.Src, e.Dst
			if a.Bundle = e.Name; d.oneIn(3) {
				a.Bundle, a.Mode = "", sa.Transport
			}
			stack = append(stack, e, a)
		default:
			stack = append(stack, d.sa(sa.ESP, mode, six))
		}
	}
	return stack
}

// damage changes the IP packet in b[ip:].
func (d draw) damage(b []byte, ip int) []byte {
	if len(b) < ip+20 || b[ip]>>4 == 6 && len(b) < ip+40 {
		return b
	}
	six, header, proto := b[ip]>>4 == 6, ip+20, ip+9
	if six {
		header, proto = ip+40, ip+6
	}
	put := func(at int, v byte) {
		if at < len(b) {
			b[at] = v
		}
	}
	switch rest := len(b) - ip; d.IntN(14) {
	case 0:
		b[d.IntN(len(b))] ^= byte(1 + d.IntN(255))
	case 1:
		addLength(b, ip, d.IntN(9)-4)
	case 2:
		b = b[:len(b)-d.IntN(min(rest, 60))]
	case 3:
		n := d.IntN(min(rest, 90))
		addLength(b, ip, -n)
		b = b[:len(b)-n*d.IntN(2)]
	case 4:
		b = append(b, make([]byte, d.IntN(30))...)
	case 5:
		put(proto, pick[byte](d, 50, 51, 17, 4, 41, 59, 0, 43, 44, 60))
	case 6: // where UDP and AH have lengths and next headers
		put(header+pick(d, 1, 4, 5), byte(d.IntN(64)))
	case 7:
		put(header, pick[byte](d, 50, 4, 41, 17, 51, 59))
	case 8: // the last byte of the SPI in ESP, AH and UDP-ESP
		put(header+pick(d, 3, 7, 11), byte(1+d.IntN(4)))
	case 9:
		return d.options(b, ip)
	case 10: // payload length 0; IHL
		if six {
			b[ip+4], b[ip+5] = 0, 0
		} else {
			b[ip] = b[ip]&0xf0 | byte(d.IntN(16))
		}
	case 11:
		b[header-1-d.IntN(8)] ^= 1 // an address
	case 12:
		if !six {
			b[ip+6] ^= pick[byte](d, 0x20, 0x40, 0x80, 1)
		}
	case 13:
		return d.damage(d.damage(b, ip), ip)
	}
	return b
}

// options inserts IPv4 options or an extension header, sound or not.
func (d draw) options(b []byte, ip int) []byte {
	o := make([]byte, 4+4*d.IntN(3))
	if b[ip]>>4 == 6 {
		o = make([]byte, 8+8*d.IntN(2))
	}
	for i := range o {
		o[i] = byte(d.IntN(pick(d, 3, 256)))
	}
	if b[ip]>>4 == 6 {
		o[0], o[1] = b[ip+6], byte(len(o)/8-1)
		b[ip+6] = pick[byte](d, 0, 43, 44, 60)
		b = slices.Insert(b, ip+40, o...)
	} else {
		if d.oneIn(2) {
			o[0], o[1] = pick[byte](d, 1, 7, 130, 131, 133, 134, 136, 148, 149), byte(len(o))
		}
		b = slices.Insert(b, ip+20, o...)
		b[ip] += byte(len(o) / 4)
	}
	addLength(b, ip, len(o))
	return b
}

// mangle draws what one SA seals wrongly.
func (d draw) mangle(s *sa.SA) forge.Mangle {
	if s.Protocol == sa.AH {
		return func(b []byte) []byte { b[d.IntN(len(b))] ^= 1; return b }
	}
	inside := func(plain []byte) []byte {
		n := len(plain) - 2 - int(plain[len(plain)-2])
		return forge.Payload(d.damage(bytes.Clone(plain[:n]), 0))(plain)
	}
	if s.Mode == sa.Transport {
		inside = forge.ZeroPad
	}
	return pick(d, forge.ZeroPad, forge.PadLength(byte(d.IntN(256))), forge.TFC(d.IntN(64)), forge.Payload(nil),
		forge.NextHeader(pick[byte](d, 59, 4, 41, 17, 50, 51)), inside, inside, inside)
}

// frame seals and damages; nil where the stack cannot be sealed.
func (d draw) frame(stack []*sa.SA, six bool) []byte {
	packet := plain4()
	if six {
		packet = plain6()
	}
	sealer, err := outbound.NewSealer(zeros{}, stack...)
	if err != nil {
		return nil
	}
	for i, s := range stack {
		if s.ESN {
			sealer.SetNumber(i, pick[uint64](d, 2<<32|5, 2<<32|0xfffffff0, 3<<32|1, 1))
		}
		number := sealer.Number(i)
		if packet, err = sealer.Stack(i).Seal(nil, packet); err != nil {
			return nil
		}
		if d.oneIn(5) {
			packet = forge.Reseal(packet, s, number, d.mangle(s))
		}
	}
	tags := pick(d, nil, nil, nil, nil, nil, []uint32{0x81000001}, []uint32{0x88a80001, 0x81000002}, []uint32{0x81000001, 0x81000001, 0x81000001})
	frame := forge.AppendFrame(nil, packet, tags...)
	for d.IntN(3) == 0 {
		frame = d.damage(frame, 14+4*len(tags))
	}
	return frame
}

// altered is what the NIC knows of an SA: mostly just that.
func (d draw) altered(s *sa.SA) *sa.SA {
	c := *s
	switch d.IntN(12) {
	case 0:
		c.Src = netip.Addr{}
	case 1:
		c.Src, c.Dst = netip.Addr{}, netip.Addr{}
	case 2:
		c.Mode ^= 3
	case 3:
		c.Encap = c.Protocol == sa.ESP && !c.Encap
	case 4:
		if c.ESN {
			c.Seq = uint64(c.SeqHigh)<<32 | uint64(pick[uint32](d, 0xffffff00, 7))
		}
	case 5: // the other protocol
		x := d.sa(c.Protocol^1, c.Mode, c.Dst.Is6())
		x.SPI, x.Src, x.Dst = c.SPI, c.Src, c.Dst
		return x
	}
	return &c
}

// offload fills a NIC and its model alike; what the NIC refuses neither has.
func (d draw) offload(stack []*sa.SA, sad *pipeline.SAD, model *modelNIC) {
	add := func(sas ...*sa.SA) {
		if _, err := sad.Add(sas...); err != nil {
			return
		}
		n := len(model.sas)
		for _, s := range sas {
			model.sas = append(model.sas, newModelSA(s))
		}
		if m := model.sas[n:]; len(m) == 2 {
			m[0].partner, m[1].partner = m[1], m[0]
		}
	}
	for i, s := range stack {
		bundled := i+1 < len(stack) && stack[i+1].Bundle == s.Name
		switch {
		case d.oneIn(8):
		case bundled && !d.oneIn(6):
			e := d.altered(s)
			if d.oneIn(8) {
				e.SPI ^= 1
			}
			add(d.altered(stack[i+1]), e)
		case s.Bundle == "" || d.oneIn(6):
			add(d.altered(s))
		}
	}
	for d.oneIn(2) {
		add(d.sa(pick(d, sa.ESP, sa.AH), pick(d, sa.Transport, sa.Tunnel), d.oneIn(2)))
	}
}

// nic draws capabilities and switches.
func (d draw) nic(stack []*sa.SA) (*pipeline.SAD, *modelNIC) {
	profile := sa.Profiles[0]
	for d.oneIn(3) {
		profile.Flags &^= pick(d, sa.IPv4Options, sa.IPv6ExtensionHeaders, sa.TransportTunnelCombined,
			sa.TransportOverUDPTunnel, sa.UDPTransportOverTunnel, sa.AHESPCombined)
	}
	sad, model := pipeline.NewSAD(profile, 1), &modelNIC{flags: profile.Flags}
	d.offload(stack, sad, model)
	if d.oneIn(20) {
		model.inactive = true
		sad.Activate(false)
	}
	if d.oneIn(8) {
		model.ahOff, model.espOff = d.oneIn(2), d.oneIn(2)
		sad.Switch(!model.ahOff, !model.espOff)
	}
	if model.pressure = d.oneIn(4); model.pressure {
		sad.ForcePressure(true)
	}
	return sad, model
}

// against runs the scenario of a seed, twice because the first frame moves ESN
// marks, and reports whether there was one.
func against(t *testing.T, seed uint64) bool {
	d := draw{rand.New(rand.NewPCG(seed, 0))}
	six := d.oneIn(2)
	stack := d.stack(six)
	frame := d.frame(stack, six)
	if frame == nil {
		return false
	}
	form := pick(d, status.InPlace, status.Decap)
	sad, model := d.nic(stack)
	p := pipeline.New(sad, pipeline.Options{Form: form})
	for range 2 {
		body, trailer := run(t, p, frame)
		word, records, want := model.judge(frame)
		removed := 0
		if form == status.Decap {
			want, removed = model.decapped(want[:len(frame)])
			want = padded(want)
		}
		got := slices.Clone(trailer.Records[:trailer.N])
		for i := range got {
			got[i].Reason, got[i].Handle = 0, 0
		}
		if trailer.Word != word || !slices.Equal(got, records) || !bytes.Equal(body, want) || int(trailer.Removed) != removed {
			t.Errorf("scenario %d of %v, %s:\n% x\nthe NIC says %s, %s, %d removed\n%+v\n% x\nthe model %s, %d removed\n%+v\n% x",
				seed, stack, form, frame, trailer.Word, trailer.Reason.String(), trailer.Removed, got, body, word, removed, records, want)
		}
	}
	return true
}

// The NIC against the model: word, records and bytes, whatever comes: all of
// the contract but its reasons.
func TestNICAgainstModel(t *testing.T) {
	scenarios := 0
	for seed := uint64(0); seed < 4000 && !t.Failed(); seed++ {
		if against(t, seed) {
			scenarios++
		}
	}
	if scenarios < 3000 {
		t.Errorf("only %d scenarios", scenarios)
	}
}

// FuzzNICAgainstModel is the same for as long as one likes.
func FuzzNICAgainstModel(f *testing.F) {
	f.Fuzz(func(t *testing.T, seed uint64) { against(t, seed) })
}
