package sa

import (
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
)

func validSA(t *testing.T) *SA {
	return &SA{Name: "a", SPI: 0x100, Dst: netip.MustParseAddr("192.0.2.1"), Protocol: ESP, Mode: Tunnel,
		Suite: mustSuite(t, ESP, "aes128gcm16"), EncryptionKey: NewKey(make([]byte, 20))}
}

// Every mistake is found, by the name of its field (contract, SA lookup).
func TestCheck(t *testing.T) {
	for _, c := range []struct {
		name    string
		change  func(*SA)
		bundled bool
		legacy  bool
		fields  []string
	}{
		{"nothing wrong", func(s *SA) {}, false, false, nil},
		{"source too", func(s *SA) { s.Src = netip.MustParseAddr("192.0.2.9") }, false, false, nil},
		{"a name with spaces", func(s *SA) { s.Name = "büro, 2. Stock" }, false, false, nil},
		{"the longest name", func(s *SA) { s.Name = strings.Repeat("ü", MaxName) }, false, false, nil},
		{"a longer name", func(s *SA) { s.Name = strings.Repeat("n", MaxName+1) }, false, false, []string{"name"}},
		{"a name that moves the cursor", func(s *SA) { s.Name = "\x1b[2J" }, false, false, []string{"name"}},
		{"a name of two lines", func(s *SA) { s.Name = "a\nb" }, false, false, []string{"name"}},
		{"a name that turns what follows round", func(s *SA) { s.Name = "a\u202e" }, false, false, []string{"name"}},
		{"SPI 0", func(s *SA) { s.SPI = 0 }, false, false, []string{"spi"}},
		{"reserved SPI is a warning only", func(s *SA) { s.SPI = 1 }, false, false, nil},
		{"no mode", func(s *SA) { s.Mode = 0 }, false, false, []string{"mode"}},
		{"source without destination", func(s *SA) { s.Src, s.Dst = s.Dst, netip.Addr{} }, false, false, []string{"dst"}},
		{"two IP versions", func(s *SA) { s.Src = netip.MustParseAddr("2001:db8::1") }, false, false, []string{"src"}},
		{"no suite", func(s *SA) { s.Suite = Suite{} }, false, false, []string{"suite"}},
		{"suite of the other protocol", func(s *SA) { s.Suite = mustSuite(t, AH, "sha256") }, false, false, []string{"suite"}},
		{"salt missing", func(s *SA) { s.EncryptionKey = NewKey(make([]byte, 16)) }, false, false, []string{"encryption_key"}},
		{"a key too many", func(s *SA) { s.IntegrityKey = NewKey(make([]byte, 16)) }, false, false, []string{"integrity_key"}},
		{"legacy", legacySA(t), false, false, []string{"suite"}},
		{"legacy allowed", legacySA(t), false, true, nil},
		{"no integrity", bareSA(t), false, false, []string{"suite"}},
		{"no integrity, under AH", bareSA(t), true, false, nil},
		{"AH in UDP", func(s *SA) { ahSA(t)(s); s.Encap = true }, false, false, []string{"encap"}},
		{"in UDP, a client behind a NAT", func(s *SA) { s.Encap, s.EncapSrc, s.EncapDst = true, 40000, EncapPort }, false, false, nil},
		{"in UDP without 4500", func(s *SA) { s.Encap, s.EncapSrc, s.EncapDst = true, 40000, 40001 }, false, false, []string{"encap_src"}},
		{"ports alone", func(s *SA) { s.EncapSrc = EncapPort }, false, false, []string{"encap"}},
		{"AH", ahSA(t), false, false, nil},
		{"AH with a bundle", func(s *SA) { ahSA(t)(s); s.Bundle = "b" }, false, false, nil},
		{"bundle on ESP", func(s *SA) { s.Bundle = "b" }, false, false, []string{"bundle"}},
		{"high half without ESN", func(s *SA) { s.SeqHigh = 1 }, false, false, []string{"seq_high"}},
		{"a number of 33 bits", func(s *SA) { s.OSeq = 1 << 32 }, false, false, []string{"oseq"}},
		{"a number of 33 bits with ESN", func(s *SA) { s.OSeq, s.ESN = 1<<32, true }, false, false, nil},
		{"a bitmap of the default window", func(s *SA) { s.Seq, s.Bitmap = 64, Bitmap{1<<64 - 1} }, false, false, nil},
		{"a bitmap beyond the window", func(s *SA) { s.Seq, s.Bitmap, s.Window = 64, Bitmap{1<<33 - 1}, 32 }, false, false, []string{"bitmap"}},
		{"a bitmap beyond the first number", func(s *SA) { s.Seq, s.Bitmap = 3, Bitmap{15} }, false, false, []string{"bitmap"}},
		{"a bitmap without seq", func(s *SA) { s.Bitmap = Bitmap{1} }, false, false, []string{"bitmap"}},
		{"a bitmap that lacks seq", func(s *SA) { s.Seq, s.Bitmap = 3, Bitmap{2} }, false, false, []string{"bitmap"}},
		{"outbound and received", func(s *SA) { s.Seq, s.OSeq, s.Direction = 3, 3, Outbound }, false, false, []string{"seq"}},
		{"inbound and sent", func(s *SA) { s.Seq, s.OSeq, s.Direction = 3, 3, Inbound }, false, false, []string{"oseq"}},
		{"high half with ESN", func(s *SA) { s.SeqHigh, s.ESN = 1, true }, false, false, nil},
		{"window 31", func(s *SA) { s.Window = 31 }, false, false, []string{"window"}},
		{"window 32", func(s *SA) { s.Window = 32 }, false, false, nil},
		{"window 65537", func(s *SA) { s.Window = 65537 }, false, false, []string{"window"}},
		{"several", func(s *SA) { s.SPI, s.Mode, s.Window = 0, 9, 1 }, false, false, []string{"spi", "mode", "window"}},
	} {
		s := validSA(t)
		c.change(s)
		var fields []string
		for _, p := range s.Check(c.bundled, c.legacy) {
			fields = append(fields, p.Field)
		}
		if !slices.Equal(fields, c.fields) {
			t.Errorf("%s: %v, expected mistakes in %v", c.name, s.Check(c.bundled, c.legacy), c.fields)
		}
	}
}

func legacySA(t *testing.T) func(*SA) {
	return func(s *SA) {
		s.Suite = mustSuite(t, ESP, "3des-md5")
		s.EncryptionKey, s.IntegrityKey = NewKey(make([]byte, 24)), NewKey(make([]byte, 16))
	}
}

func bareSA(t *testing.T) func(*SA) {
	return func(s *SA) {
		s.Suite = mustSuite(t, ESP, "aes128")
		s.EncryptionKey = NewKey(make([]byte, 16))
	}
}

func ahSA(t *testing.T) func(*SA) {
	return func(s *SA) {
		s.Protocol, s.Suite = AH, mustSuite(t, AH, "aes128gmac")
		s.EncryptionKey, s.IntegrityKey = Key{}, NewKey(make([]byte, 20))
	}
}

// A reload keeps T where identity, mode and keys agree (contract, ESN), and
// only there.
func TestSame(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*SA)
		same   bool
	}{
		"unchanged":   {func(s *SA) { s.EncryptionKey = NewKey(make([]byte, 20)) }, true},
		"name":        {func(s *SA) { s.Name, s.Window, s.SeqHigh = "b", 128, 7 }, true},
		"SPI":         {func(s *SA) { s.SPI++ }, false},
		"destination": {func(s *SA) { s.Dst = s.Dst.Next() }, false},
		"source":      {func(s *SA) { s.Src = s.Dst }, false},
		"key":         {func(s *SA) { s.EncryptionKey = NewKey(append(make([]byte, 19), 1)) }, false},
		"suite":       {func(s *SA) { s.Suite = mustSuite(t, ESP, "aes128ctr-sha256") }, false},
		"mode":        {func(s *SA) { s.Mode = Transport }, false},
		"ESN":         {func(s *SA) { s.ESN = true }, false},
	} {
		a, b := validSA(t), validSA(t)
		if c.change(b); a.Same(b) != c.same || b.Same(a) != c.same {
			t.Errorf("%s: Same = %v", name, a.Same(b))
		}
	}
}

func TestSAString(t *testing.T) {
	if got, want := validSA(t).String(), "a (esp tunnel, SPI 0x00000100, to 192.0.2.1)"; got != want {
		t.Errorf("%q, expected %q", got, want)
	}
}

// TestUnchangedKnowsEveryField: an SA that differs in any field has changed.
func TestUnchangedKnowsEveryField(t *testing.T) {
	suite, err := ParseSuite(ESP, "aes128gcm16")
	if err != nil {
		t.Fatal(err)
	}
	one := SA{Suite: suite, Selector: &Selector{Protocol: 6}, Bitmap: Bitmap{1}}
	same := one
	same.Selector, same.Bitmap = &Selector{Protocol: 6}, Bitmap{1}
	if !one.Unchanged(&same) {
		t.Error("a copy has changed")
	}
	others := map[reflect.Type]any{
		reflect.TypeFor[netip.Addr](): netip.MustParseAddr("192.0.2.1"), reflect.TypeFor[Suite](): Suite{Name: "null"},
		reflect.TypeFor[Key](): NewKey([]byte{1}), reflect.TypeFor[Bitmap](): Bitmap{3}, reflect.TypeFor[*Selector](): &Selector{},
		reflect.TypeFor[Lifetimes](): Lifetimes{Hard: Limit{Packets: 1}}, reflect.TypeFor[string](): "x", reflect.TypeFor[bool](): true,
	}
	for i := range reflect.TypeFor[SA]().NumField() {
		changed := one
		v := reflect.ValueOf(&changed).Elem().Field(i)
		if other, ok := others[v.Type()]; ok {
			v.Set(reflect.ValueOf(other))
		} else {
			v.SetUint(1)
		}
		if one.Unchanged(&changed) || changed.Unchanged(&one) {
			t.Errorf("%s has changed", reflect.TypeFor[SA]().Field(i).Name)
		}
	}
}
