package sa

import (
	"encoding"
	"fmt"
	"testing"
)

func TestPortsUnmarshal(t *testing.T) {
	for text, want := range map[string]Ports{
		"80": {80, 80}, "1024-2047": {1024, 2047}, "0-65535": {0, 65535}, "0-7": {0, 7},
	} {
		var p Ports
		if err := p.UnmarshalText([]byte(text)); err != nil || p != want {
			t.Errorf("%q: %v, %v", text, p, err)
		}
	}
	for _, text := range []string{"", "0", "0-0", "-", "1-", "-1", "2-1", "65536", "80,81", "0x50", " 80"} {
		var p Ports
		if err := p.UnmarshalText([]byte(text)); err == nil || p != (Ports{}) {
			t.Errorf("%q was read as %v, %v", text, p, err)
		}
	}
}

// Every word that a configuration has for these types reads back as itself.
func TestWordsUnmarshal(t *testing.T) {
	type word interface {
		encoding.TextUnmarshaler
		String() string
	}
	for _, texts := range []struct {
		new   func() word
		words []string
	}{
		{func() word { return new(Action) }, []string{"protect", "bypass", "discard"}},
		{func() word { return new(Protocol) }, []string{"esp", "ah"}},
		{func() word { return new(Mode) }, []string{"transport", "tunnel"}},
		{func() word { return new(Offload) }, []string{"required", "preferred", "never"}},
	} {
		for _, text := range texts.words {
			if w := texts.new(); w.UnmarshalText([]byte(text)) != nil || w.String() != text {
				t.Errorf("%q was read as %s", text, w)
			}
		}
		for _, text := range []string{"", "ESP", "none", "0"} {
			if w := texts.new(); w.UnmarshalText([]byte(text)) == nil {
				t.Errorf("%q was read as %s", text, w)
			}
		}
	}
}

// A value that means nothing shows as what it is, and as no other value.
func TestNamesOfNothing(t *testing.T) {
	for want, value := range map[string]fmt.Stringer{
		"offload 3": Offload(3), "offload 255": Offload(255), "action 0": Action(0), "action 4": Action(4), "action 5": Action(5),
	} {
		if value.String() != want {
			t.Errorf("got %s, want %s", value, want)
		}
	}
}
