package pages

import (
	"flag"
	"fmt"
	"html"
	"os"
	"regexp"
	"strings"
	"testing"

	"tapsec/test/program"
)

var update = flag.Bool("update", false, "write docs/explain.svg")

// TestPicture: README's picture is what the program prints, drawn.
func TestPicture(t *testing.T) {
	args := strings.Fields("explain --color always -c configs/layers.yaml configs/layers.pcapng:5")
	t.Chdir(root)
	said, err := program.Command(args...).Output()
	if err != nil {
		t.Fatal(err)
	}
	picture := drawn("$ tapsec " + strings.Join(append(args[:1:1], args[3:]...), " ") + "\n" + string(said))
	if *update {
		if err := os.WriteFile("docs/explain.svg", []byte(picture), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if text, err := os.ReadFile("docs/explain.svg"); err != nil || string(text) != picture {
		t.Errorf("explain prints something else than docs/explain.svg shows, %v: go test ./test/pages -run Picture -update", err)
	}
}

const (
	cell, row, margin = 8, 18, 16 // of a character, in pixels
	// head has the colours of internal/page, of either theme of the machine.
	head = `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" role="img" xml:space="preserve">
<title>A frame that failed, as tapsec explain tells of it</title>
<style>
svg { --paper: #f6f7f8; --ink: #1c1e21; --dim: #666c74; --line: #d9dce0; --good: #237a35; --failed: #c2255c }
@media (prefers-color-scheme: dark) { svg { --paper: #1f2226; --ink: #e4e6e9; --dim: #9aa1a9; --line: #33373c; --good: #51cf66; --failed: #ff6b9d } }
rect { fill: var(--paper); stroke: var(--line) }
text { fill: var(--ink); font: 13px ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace; white-space: pre }
.bad { fill: var(--failed); font-weight: bold } .good { fill: var(--good) } .dim { fill: var(--dim) }
</style>
<rect x=".5" y=".5" width="%d" height="%d" rx="6"/>
`
)

// classes are what a terminal's codes are drawn as.
var (
	code    = regexp.MustCompile(`\x1b\[([0-9;]*)m`)
	classes = map[string]string{"0": "</tspan>", "1;31": `<tspan class="bad">`, "32": `<tspan class="good">`, "2": `<tspan class="dim">`}
)

// drawn is what a terminal shows, as a picture. Each line has the width of its
// characters, whatever font there is.
func drawn(text string) string {
	lines := strings.Split(strings.TrimRight(text, "\n"), "\n")
	width, height := 80*cell+2*margin, len(lines)*row+2*margin
	var b strings.Builder
	fmt.Fprintf(&b, head, width, height, width-1, height-1)
	for i, line := range lines {
		drawn := code.ReplaceAllStringFunc(html.EscapeString(line), func(c string) string { return classes[code.FindStringSubmatch(c)[1]] })
		if n := len(code.ReplaceAllString(line, "")); n > 0 {
			fmt.Fprintf(&b, `<text x="%d" y="%d" textLength="%d">%s</text>`+"\n", margin, margin+i*row+row-5, n*cell, drawn)
		}
	}
	return b.String() + "</svg>\n"
}
