package test

import (
	"strings"
	"testing"
	"unicode/utf8"

	"tapsec/internal/lab/rig"
	"tapsec/test/program"
)

// TestDemo: the first command that somebody tries comes to a good end, within the columns of a terminal.
func TestDemo(t *testing.T) {
	rig.Require(t)
	said, err := program.Command("demo", "--traffic", "100ms").Output()
	if err != nil || !strings.Contains(string(said), "arrived whole") {
		t.Errorf("%v\n%s", err, said)
	}
	for line := range strings.Lines(string(said)) {
		if utf8.RuneCountInString(strings.TrimSuffix(line, "\n")) > 80 {
			t.Errorf("a line of more than 80 columns: %s", line)
		}
	}
}
