package sa

import (
	"encoding/json"
	"net/netip"
	"testing"
)

// An ID goes through JSON as people write it, wildcard addresses included.
func TestIDAsJSON(t *testing.T) {
	for text, want := range map[string]ID{
		`{"protocol":"esp","spi":"0x00001001","dst":"192.0.2.1","src":"192.0.2.2"}`: {ESP, 0x1001, netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")},
		`{"protocol":"ah","spi":"0xffffffff","dst":"2001:db8::1","src":""}`:         {AH, 0xffffffff, netip.MustParseAddr("2001:db8::1"), netip.Addr{}},
		`{"protocol":"esp","spi":"0x00000000","dst":"","src":""}`:                   {Protocol: ESP},
	} {
		b, err := json.Marshal(want)
		if err != nil || string(b) != text {
			t.Errorf("%v became %s, %v", want, b, err)
		}
		var got ID
		if err := json.Unmarshal([]byte(text), &got); err != nil || got != want {
			t.Errorf("%s became %v, %v", text, got, err)
		}
	}
}

func TestSPIText(t *testing.T) {
	for text, want := range map[string]SPI{"4097": 0x1001, "0x1001": 0x1001, "4294967295": 0xffffffff} {
		var got SPI
		if err := got.UnmarshalText([]byte(text)); err != nil || got != want {
			t.Errorf("%s: %s, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "-1", "0x100000000", "spi", "0x"} {
		if err := new(SPI).UnmarshalText([]byte(text)); err == nil {
			t.Errorf("%q was accepted", text)
		}
	}
}

func TestIDString(t *testing.T) {
	s := SA{Protocol: AH, SPI: 0xc001, Dst: netip.MustParseAddr("::1")}
	if got := s.ID().String(); got != "ah SPI 0x0000c001 to ::1" {
		t.Error(got)
	}
	s.Src = netip.MustParseAddr("::2")
	if got := s.ID().String(); got != "ah SPI 0x0000c001 to ::1 from ::2" {
		t.Error(got)
	}
}
