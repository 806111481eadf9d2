package near

import (
	"strings"
	"testing"
)

func TestName(t *testing.T) {
	names := []string{"replay", "rig", "run", "list", "summary-only", "summary", "add", "aes128gcm12", "aes128gcm16", "capabilities", "completion"}
	for found, want := range map[string]string{
		"replya": "replay", "REPLAY": "replay", "lsit": "list", "ad": "add",
		"aes128gcm17": "aes128gcm16", "cap": "capabilities",
		"summ": "", "c": "", "": "", "nosuch": "", "x": "",
		strings.Repeat("x", 1<<16): "", "r\xff": "",
	} {
		if got := Name(found, names); got != want {
			t.Errorf("%.20q: %q, want %q", found, got, want)
		}
	}
	if got := Name("replay", nil); got != "" {
		t.Errorf("%q of no names", got)
	}
}
