package cli

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// What show says of a capture whose frames are annotated is what replay said of them as it
// annotated them, but for why an SA's frames fail, which nobody sees any more. Replay says
// that such a capture is for show.
func TestShow(t *testing.T) {
	const config, from = samples + "/layers.yaml", samples + "/layers.pcapng"
	annotated := filepath.Join(t.TempDir(), "annotated.pcapng")
	said, account, err := command("", "replay", "-c", config, "--annotate", "trailer", "--form", "inplace", "-o", annotated, from)
	if err != nil {
		t.Fatal(err)
	}
	shown, sums, err := command("", "show", "-c", config, annotated)
	if err != nil || shown != said {
		t.Errorf("%v, show says\n%s\nreplay says\n%s", err, shown, said)
	}
	for line := range strings.Lines(sums) {
		if !slices.Contains(strings.SplitAfter(account, "\n"), line) {
			t.Errorf("show sums up\n%swhich replay does not:\n%s", line, account)
		}
	}
	if _, warned, err := command("", "replay", "-c", config, annotated); err != nil || !strings.Contains(warned, "warning: 10 frames carry a verdict already") || !strings.Contains(warned, "tapsec show "+annotated) {
		t.Errorf("%v, replay says of an annotated capture\n%s", err, warned)
	}
	nothing, left, err := command("", "show", from)
	if err != nil || nothing != "" || !strings.Contains(left, "left out: 10 frames without a verdict") {
		t.Errorf("%v, of frames without a verdict is shown\n%s%s", err, nothing, left)
	}
	byNumber, _, err := command("", "show", annotated, "--only", "failed")
	if err != nil || !strings.Contains(byNumber, "esp 0x00001001 seq 7: the\n") || strings.Contains(byNumber, "gateway") {
		t.Errorf("%v, without names is shown\n%s", err, byNumber)
	}
}
