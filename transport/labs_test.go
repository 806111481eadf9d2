package transport_test

import (
	"net/netip"
	"slices"
	"testing"

	"tapsec/internal/lab/conformance"
	"tapsec/pipeline"
	"tapsec/sa"
	"tapsec/status"
	"tapsec/test/testkit"
	"tapsec/transport"
)

// good are the cases that end with a packet for the stack; every other case
// must be in bad. Titles are those of conformance.Contract.
var good = []string{
	"an ARP request", "a datagram in the clear", "UDP 4500: IKE", "UDP 4500: too short for ESP",
	"transport ESP", "transport AH", "transport ESP in UDP", "tunnel ESP", "tunnel AH", "ESP in ESP", "AH in AH", "a frame ...",
	"transport AH+ESP", "tunnel AH+ESP", "transport AH, ESP, not bundled", "tunnel, transport AH+ESP inside",
	"a tunnel inside the tunnel", "transport ESP over AH", "ESP in UDP inside a tunnel in UDP", "ESP in UDP inside a plain tunnel",
	"transport ESP inside a tunnel in UDP", "both portions, NIC takes one", "AH+ESP, NIC takes one of them",
	"IPv4 options, NIC takes none", "good, the SA table full", "the SA has been deleted", "transport ESP, switched off",
	"AH+ESP, one of them switched off", "tunnel ESP switched off, AH inside", "tunnel AH good, ESP inside switched off",
	"receive offload is not active", "mode auto: transport ESP", "mode auto: transport AH", "mode auto: tunnel ESP",
	"mode auto: tunnel AH", "mode auto: ESP in ESP", "mode auto: AH over ESP", "mode auto: a tunnel inside the tunnel",
}

var bad = map[string]transport.Reason{
	// The labs set "more fragments" and leave the header checksum as it was.
	"a fragment of an ESP packet":     transport.IPChecksum,
	"tunnel, inner ESP is a fragment": transport.IPChecksum,
	"a fragment, the SA table full":   transport.IPChecksum,

	"ESP, no such SA":                            transport.NoSA,
	"UDP 4500: ESP, no such SA":                  transport.NoSA,
	"UDP 4500: keep-alive":                       transport.KeepAlive,
	"transport AH, wrong ICV":                    icv,
	"transport ESP, wrong ICV":                   icv,
	"tunnel AH, wrong ICV":                       icv,
	"tunnel ESP, wrong ICV":                      icv,
	"tunnel good, transport AH wrong":            icv,
	"tunnel good, transport ESP wrong":           icv,
	"tunnel ESP wrong around good transport":     icv,
	"tunnel AH wrong around good transport":      icv,
	"tunnel good, inner ESP has no SA":           transport.NoSA,
	"outer ESP has no SA, the inner has":         transport.NoSA,
	"... and the same again (replay)":            replay,
	"transport AH+ESP, AH wrong":                 icv,
	"tunnel AH+ESP, AH wrong":                    icv,
	"transport AH+ESP, ESP wrong":                icv,
	"tunnel AH+ESP, ESP wrong":                   icv,
	"the bundle's ESP without its AH":            transport.Protocol,
	"the bundle's AH over another ESP":           transport.Protocol,
	"tunnel, transport AH+ESP, AH wrong":         icv,
	"tunnel, transport AH+ESP, ESP wrong":        icv,
	"ESP under the SPI of an AH SA":              transport.Protocol,
	"the frame ends before its IP length":        transport.Length,
	"ESP no multiple of its block":               transport.Length,
	"AH length that its ICV cannot have":         transport.Length,
	"ESP pad length beyond the payload":          transport.Length,
	"an IPv4 option that AH cannot read":         transport.Length,
	"the packet ends inside its SPI":             transport.NoSA,
	"transport ESP, pad bytes wrong":             transport.Padding,
	"tunnel ESP, pad bytes wrong":                transport.Padding,
	"tunnel, transport of the other protocol":    transport.Protocol,
	"tunnel, transport ESP of impossible length": transport.Length,
	"tunnel, transport pad bytes wrong":          transport.Padding,
	"a dummy packet":                             transport.Dummy,
	"the tunnel carries no IP packet":            transport.InnerNotIP,
	"wrong ICV, the SA table full":               icv,
	"no such SA, the SA table full":              transport.NoSA,
	"mode auto: transport ESP, wrong ICV":        icv,
	"mode auto: tunnel AH, wrong ICV":            icv,
	"mode auto: tunnel good, ESP inside wrong":   icv,
}

// lab is a host whose NIC a lab has arranged, and which has all its SAs.
func lab(t testing.TB, l *conformance.Setup) *host {
	var sas []*sa.SA
	for _, b := range l.Bundles {
		sas = append(sas, b...)
	}
	h := newHost(t, setup{sas: sas, local: nil, profile: l.Profile.Name, prepare: func(d *pipeline.SAD) { d.Flush() }})
	if err := h.Replace(l.Bundles, nil, nil); err != nil {
		t.Fatal(err)
	}
	if err := l.Arrange(h.sad); err != nil {
		t.Fatal(err)
	}
	return h
}

// Contract, The transport, step 2: each row of the table ends as it must, and ends the same way
// where no NIC has looked at the frame. Failed frames go to the mirror and count
// in no window but those of their good headers.
func TestLabs(t *testing.T) {
	clear := conformance.Contract()[0].Cases[1].Frame
	for _, l := range conformance.Contract() {
		with, without := lab(t, &l), lab(t, &l)
		without.sad.Activate(false)
		for i := range l.Cases {
			c := &l.Cases[i]
			t.Run(l.Name+"/"+c.Row+" "+c.Title, func(t *testing.T) {
				with.tb, without.tb = t, t
				with.isAsSaid(c, clear)
				without.isAsSaid(c, clear)
			})
		}
	}
}

func (h *host) isAsSaid(c *conformance.Case, hello []byte) {
	h.tb.Helper()
	clean, v, r := h.receive(c.Frame)
	want, drop := bad[c.Title]
	switch {
	case slices.Contains(good, c.Title):
		if !v.Clean() {
			h.tb.Fatalf("%s (%s), want a packet", v, r)
		}
		if c.Word != 0 || c.Row == "3" && c.Reason.String() != "ipv4-options" {
			same(h.tb, clean, hello)
		}
	case !drop:
		h.tb.Error("a case that this test does not know")
	case v != transport.Drop || !alike(r, want):
		h.tb.Errorf("%s (%s), want it dropped as %s", v, r, want)
	}
}

// alike: where no NIC has found a header wrong, what is wrong may be seen as
// something else.
func alike(got, want transport.Reason) bool {
	return got == want || want == transport.Protocol && got == transport.NoSA || want == transport.Length && got == transport.BadIP
}

// Contract, The transport, step 2: row 22 alone goes to software where the transport has an SA of
// the frame's protocol.
func TestProtocolInSoftware(t *testing.T) {
	ah := ahSA(sa.Transport, spi(0x1001))
	esp := espSA(sa.Transport, never)
	h := newHost(t, setup{sas: []*sa.SA{ah, esp}})
	h.delivers(framed(once(t, 1, plain4(), esp)), framed(plain4()))
	h.drops(framed(once(t, 1, plain4(), esp)), replay)
	h.drops(framed(flipped(once(t, 2, plain4(), esp))), icv)
	tun := espSA(sa.Tunnel)
	h = newHost(t, setup{sas: []*sa.SA{ah, esp, tun}})
	h.delivers(framed(once(t, 1, plain4(), esp, tun)), framed(plain4()))
	h = newHost(t, setup{sas: []*sa.SA{ah}})
	h.drops(framed(once(t, 1, plain4(), esp)), transport.Protocol)
	if len(h.events) != 1 || h.events[0].Check != status.ProtocolMismatch || h.events[0].SPI != esp.SPI {
		t.Errorf("told %+v", h.events)
	}
}

// Of two SAs with one SPI the NIC holds the one that matches more packets. The
// other one's packets fail there, and software opens them.
func TestShadowed(t *testing.T) {
	nobody := netip.Addr{}
	for _, general := range []change{anySrc, between(nobody, nobody)} {
		for _, name := range []string{"aes256gcm16", "aes128-sha512"} {
			wide := espSA(sa.Transport, named("wide"), testkit.Suite(name), general)
			exact := espSA(sa.Transport, named("exact"), never)
			h := newHost(t, setup{sas: []*sa.SA{wide, exact}})
			h.delivers(framed(once(t, 1, plain4(), exact)), framed(plain4()))
			h.drops(framed(once(t, 1, plain4(), exact)), replay)
			h.drops(framed(flipped(once(t, 2, plain4(), exact))), icv)
			other := natted(plain4(), netip.MustParseAddr("10.1.0.9"))
			h.delivers(framed(once(t, 1, other, wide)), framed(other))
			if h.window("exact").Seen != 1 || h.window("wide").Seen != 1 {
				t.Errorf("windows: %+v", slices.Collect(h.States()))
			}
		}
	}
}
