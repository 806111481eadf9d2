package pipeline_test

import (
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"tapsec/internal/lab/forge"
	"tapsec/pipeline"
	"tapsec/sa"
	"tapsec/status"
	"tapsec/test/testkit"
	"tapsec/wire"
)

func anyAddress(s *sa.SA) { s.Src, s.Dst = netip.Addr{}, netip.Addr{} }

// Contract row 3: what each real profile does not advertise it does not do.
func TestProfiles(t *testing.T) {
	v1 := testkit.Suite("null-sha1")
	options := forge.Options(nil, plain4(), []byte{148, 4, 0, 0})
	headers := extended(plain6(), wire.ProtoDestOpts, optionsFixed)
	row3 := func(profile string, a *sa.SA, packet []byte, reason status.Reason) frameCase {
		return frameCase{name: profile + "/" + reason.String(), profile: profile, sas: []*sa.SA{a}, packet: packet,
			reason: reason, records: []outcome{left(reason)}}
	}
	fine := func(profile string, packet []byte, word status.Word, sas ...*sa.SA) frameCase {
		return frameCase{name: profile + "/" + sas[0].Name, profile: profile, sas: sas, packet: packet, word: word,
			reason: status.Verified, records: slices.Repeat([]outcome{good}, len(sas))}
	}
	gcm6, gmac := espSA(sa.Transport, v6), ahSA(sa.Transport, testkit.Suite("aes128gmac"))
	runAll(t, []frameCase{
		row3("ndis-v1", espSA(sa.Transport, v1, anyAddress), plain6(), status.NoFamily),
		fine("ndis-v1", options, 6, espSA(sa.Transport, v1), espSA(sa.Tunnel, testkit.Suite("3des-md5"))),
		fine("ndis-v1", nil, 2, bundle(sa.Transport, func(s *sa.SA) { testkit.Suite(map[sa.Protocol]string{sa.ESP: "des-md5", sa.AH: "sha1"}[s.Protocol])(s) })...),
		fine("ndis-v2", headers, 6, espSA(sa.Transport, v6), ahSA(sa.Tunnel)),
		fine("ndis-v2", nil, 6, espSA(sa.Transport, encap), espSA(sa.Tunnel, esn)),
		row3("ixgbe-82599", espSA(sa.Transport), options, status.IPv4Options),
		row3("ixgbe-82599", gmac, options, status.IPv4Options),
		row3("ixgbe-82599", gcm6, headers, status.IPv6Extensions),
		fine("ixgbe-82599", nil, 2, gmac),
		fine("ixgbe-82599", plain6(), 2, gcm6),
		row3("mlx5-crypto", espSA(sa.Transport), options, status.IPv4Options),
		row3("mlx5-crypto", gcm6, headers, status.IPv6Extensions),
		fine("mlx5-crypto", plain6(), 2, espSA(sa.Tunnel, esn, testkit.Suite("aes256gcm16"))),
		fine("full", headers, 6, ahSA(sa.Transport, v6), espSA(sa.Tunnel, encap, esn, testkit.Suite("aes256ctr-sha384"))),
	})
	inner := row3("mlx5-crypto", espSA(sa.Transport), options, status.IPv4Options)
	inner.name, inner.word = "inner options (row 31)", 2
	inner.sas = append(inner.sas, espSA(sa.Tunnel))
	inner.records = append([]outcome{good}, inner.records...)
	runAll(t, []frameCase{inner})
}

// A profile refuses an SA beyond it, naming what it lacks (contract, Capability profiles).
func TestProfileRefuses(t *testing.T) {
	for _, f := range []struct {
		profile string
		sas     []*sa.SA
		lacks   string
	}{
		{"ndis-v1", []*sa.SA{espSA(sa.Transport, testkit.Suite("null-sha1"), v6)}, "IPv6"},
		{"ndis-v1", []*sa.SA{espSA(sa.Transport, testkit.Suite("null-sha1"), esn)}, "Esn"},
		{"ndis-v1", []*sa.SA{espSA(sa.Transport)}, "aes128gcm16"},
		{"ndis-v2", []*sa.SA{espSA(sa.Transport, testkit.Suite("chacha20poly1305"))}, "chacha20poly1305"},
		{"ixgbe-82599", []*sa.SA{espSA(sa.Tunnel)}, "Tunnel"},
		{"ixgbe-82599", []*sa.SA{espSA(sa.Transport, encap)}, "UdpEsp.Transport"},
		{"ixgbe-82599", bundle(sa.Transport), "AhEspCombined"},
		{"mlx5-crypto", []*sa.SA{ahSA(sa.Transport)}, "Ah"},
		{"mlx5-crypto", []*sa.SA{espSA(sa.Transport, testkit.Suite("aes192gcm16"))}, "aes192gcm16"},
		{"mlx5-crypto", []*sa.SA{espSA(sa.Tunnel, encap)}, "UdpEsp.Tunnel"},
	} {
		profile, err := sa.ProfileByName(f.profile)
		if err != nil {
			t.Fatal(err)
		}
		sad := pipeline.NewSAD(profile, 1)
		slices.Reverse(f.sas)
		if _, err := sad.Add(f.sas...); err == nil || !strings.Contains(err.Error(), f.lacks) {
			t.Errorf("%s: %v, want it to name %s", f.profile, err, f.lacks)
		}
		if n := len(sad.List()); n != 0 {
			t.Errorf("%s: a refused SA left %d behind", f.profile, n)
		}
	}
}

// Missing UDP-ESP subtypes act like the missing TransportTunnelCombined
// (contract row 17; contract, Capability profiles).
func TestUDPSubtypes(t *testing.T) {
	for _, f := range []struct {
		lacks sa.Flags
		sas   []*sa.SA
	}{
		{sa.TransportOverUDPTunnel, []*sa.SA{espSA(sa.Transport), espSA(sa.Tunnel, encap)}},
		{sa.UDPTransportOverTunnel, []*sa.SA{espSA(sa.Transport, encap), espSA(sa.Tunnel)}},
		{sa.TransportTunnelCombined, []*sa.SA{espSA(sa.Transport), espSA(sa.Tunnel)}},
	} {
		profile := sa.Profiles[0]
		profile.Flags &^= f.lacks
		sad := pipeline.NewSAD(profile, 1)
		offload(t, sad, f.sas...)
		c := frameCase{sas: f.sas}
		_, trailer := process(t, sad, pipeline.Options{}, c.seal(t).frame)
		if trailer.Word != 2 || trailer.Reason != status.NoCombined || trailer.Records[1].State != status.NotProcessed {
			t.Errorf("without %s: %s %s", f.lacks, trailer.Word, trailer.Reason)
		}
	}
}

// Capacity counts bundles, and a full table is its own error and leaves nothing
// behind (contract, Lifecycle).
func TestCapacity(t *testing.T) {
	profile := sa.Profiles[0]
	profile.Capacity = 32
	sad := pipeline.NewSAD(profile, 1)
	first := espSA(sa.Transport)
	offload(t, sad, first)
	for n := 1; n < profile.Capacity; n++ {
		if sad.UnderPressure() != (n >= 30) {
			t.Errorf("%d of 32 bundles: under pressure %v", n, n < 30)
		}
		offload(t, sad, bundle(sa.Transport, spi(uint32(0x5000+n)))...)
	}
	before := len(sad.List())
	b := bundle(sa.Transport, spi(0x9999))
	if _, err := sad.Add(b[1], b[0]); !errors.Is(err, sa.ErrFull) {
		t.Errorf("the 33rd bundle: %v", err)
	}
	_ = sad.Delete(sad.Handle(first.ID()))
	if err := sad.AddAll([][]*sa.SA{{first}, {espSA(sa.Transport, spi(0x9998))}}); !errors.Is(err, sa.ErrFull) || sad.Handle(first.ID()) != 0 {
		t.Errorf("two where there is room for one: %v", err)
	}
	offload(t, sad, first)
	if held, capacity := sad.Room(); len(sad.List()) != before || held != 32 || capacity != 32 {
		t.Errorf("%d of %d bundles, %d SAs", held, capacity, len(sad.List()))
	}
	sad.Flush()
	c := frameCase{sas: []*sa.SA{first}}
	_, trailer := process(t, sad, pipeline.Options{}, c.seal(t).frame)
	if trailer.Word != 0 || trailer.Reason != status.SADeleted {
		t.Errorf("after a flush: %s %s", trailer.Word, trailer.Reason)
	}
}

// A table that is nearly full asks for the SAs that were used least recently, a
// sixteenth of its capacity each second, until it has room (contract row 26).
func TestPressure(t *testing.T) {
	profile := sa.Profiles[0]
	profile.Capacity = 32
	sad := pipeline.NewSAD(profile, 1)
	var sas []*sa.SA
	for n := range uint32(29) {
		sas = append(sas, espSA(sa.Transport, spi(0x6000+n)))
	}
	offload(t, sad, sas...)
	asked := func(i int) bool {
		c := frameCase{sas: sas[i : i+1]}
		_, trailer := process(t, sad, pipeline.Options{}, c.seal(t).frame)
		if trailer.Word.DeleteSA() != trailer.Records[0].DeleteSA {
			t.Error("the word contradicts the record")
		}
		return trailer.Word.DeleteSA()
	}
	sad.Tick()
	for i := range sas { // one each second, the last one first
		if asked(28 - i) {
			t.Fatal("asked for without need")
		}
		sad.Tick()
	}
	if sad.Find(sas[28].ID()).Unused != 29 || sad.Find(sas[0].ID()).Unused != 1 {
		t.Errorf("the first one used was unused for %d s, the last one for %d s", sad.Find(sas[28].ID()).Unused, sad.Find(sas[0].ID()).Unused)
	}
	offload(t, sad, espSA(sa.Transport, spi(0x7000)))
	if asked(28) {
		t.Error("asked for before a second has passed")
	}
	sad.Tick() // SA 28 was just used
	for i, want := range map[int]bool{28: false, 27: true, 26: true, 25: false, 24: false} {
		if asked(i) != want {
			t.Errorf("SA %d asked for in the first second: %v", i, !want)
		}
	}
	sad.Tick()
	for i, want := range map[int]bool{28: false, 27: true, 26: true, 25: false, 24: false, 23: true, 22: true, 0: false} {
		if asked(i) != want {
			t.Errorf("SA %d asked for in the second second: %v", i, !want)
		}
	}
	offload(t, sad, espSA(sa.Transport, spi(0x7001)), espSA(sa.Transport, spi(0x7002)))
	if !asked(0) {
		t.Error("a full table does not ask for what is used")
	}
	for _, s := range sas[2:] {
		_ = sad.Delete(sad.Handle(s.ID()))
	}
	if sad.Tick(); asked(0) || asked(1) {
		t.Error("asked for after the pressure")
	}
}

// The switches of receive offload in every position (contract rows 3, 16 and
// 31; decision order): inactive, nothing is looked up.
func TestSwitches(t *testing.T) {
	inactive := func(s *pipeline.SAD) { s.Activate(false) }
	noAH := func(s *pipeline.SAD) { s.Switch(false, true) }
	noESP := func(s *pipeline.SAD) { s.Switch(true, false) }
	off := left(status.ProtocolOff)
	esp, ah := espSA(sa.Transport), ahSA(sa.Transport)
	espTun, ahTun := espSA(sa.Tunnel), ahSA(sa.Tunnel)
	c := func(name string, prepare func(*pipeline.SAD), word status.Word, reason status.Reason, sas []*sa.SA, records ...outcome) frameCase {
		return frameCase{name: name, prepare: prepare, word: word, reason: reason, sas: sas, records: records}
	}
	one := func(a *sa.SA) []*sa.SA { return []*sa.SA{a} }
	runAll(t, []frameCase{
		c("inactive", inactive, 0, status.OffloadInactive, one(esp)),
		c("inactive, nested", inactive, 0, status.OffloadInactive, []*sa.SA{esp, ahTun}),
		c("AH off", noAH, 0, status.ProtocolOff, one(ah), off),
		c("AH off, tunnel", noAH, 0, status.ProtocolOff, one(ahTun), off),
		c("AH off, ESP goes on", noAH, 2, status.Verified, one(esp), good),
		c("ESP off", noESP, 0, status.ProtocolOff, one(espTun), off),
		c("ESP off, AH goes on", noESP, 2, status.Verified, one(ah), good),
		c("AH+ESP, AH off", noAH, 0, status.ProtocolOff, bundle(sa.Transport), off, off),
		c("AH+ESP, ESP off", noESP, 0, status.ProtocolOff, bundle(sa.Tunnel), off, off),
		c("outer off (row 16)", noESP, 0, status.ProtocolOff, []*sa.SA{ah, espTun}, off),
		c("outer AH off (row 16)", noAH, 0, status.ProtocolOff, []*sa.SA{esp, ahTun}, off),
		c("inner off (row 31)", noESP, 2, status.ProtocolOff, []*sa.SA{esp, ahTun}, good, off),
		c("inner AH off (row 31)", noAH, 2, status.ProtocolOff, []*sa.SA{ah, espTun}, good, off),
		c("inner AH+ESP, ESP off (row 31)", noESP, 2, status.ProtocolOff, append(bundle(sa.Transport), ahTun), good, off, off),
	})
	again := c("active again", func(s *pipeline.SAD) { inactive(s); s.Activate(true); noAH(s); s.Switch(true, true) }, 2, status.Verified, one(ah), good)
	runAll(t, []frameCase{again})
}

// A bundle is processed only if both its protocols are on, also where the frame
// lacks one of them: capabilities come before protocols (contract row 3 before
// 22).
func TestSwitchedOffBundleWithoutPartner(t *testing.T) {
	esp := espSA(sa.Transport)
	ah := ahSA(sa.Transport, over(esp))
	c := frameCase{
		sas: []*sa.SA{esp}, also: []*sa.SA{ah}, prepare: func(s *pipeline.SAD) { s.Switch(false, true) },
		reason: status.ProtocolOff, records: []outcome{left(status.ProtocolOff)},
	}
	c.check(t)
}
