package house

import (
	"flag"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"tapsec/docs/reasons"
	"tapsec/internal/outbound"
	"tapsec/status"
	"tapsec/transport"
)

var update = flag.Bool("update", false, "write docs/reasons.md")

// docs/reasons.md has every reason of both sides of a host. What stands in it is
// what logs and counters say.
func TestReasonsDocument(t *testing.T) {
	const path = "../../docs/reasons.md"
	doc, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	want := listed(t, string(doc), "transport", transport.Reasons(), transport.NumReasons)
	want = listed(t, want, "outbound", outbound.Reasons(), outbound.NumReasons)
	if *update {
		err = os.WriteFile(path, []byte(want), 0o644)
	} else if want != string(doc) {
		err = fmt.Errorf("%s is out of date: run go test ./test/house -update", path)
	}
	if err != nil {
		t.Error(err)
	}
}

// reason is what both lists are of.
type reason interface {
	fmt.Stringer
	Sentence() string
	Qualified() string
}

// listed puts a list of reasons into the fenced block of that title.
func listed[R reason](t *testing.T, doc, title string, reasons []R, n int) string {
	t.Helper()
	block := regexp.MustCompile("(?s)(```text " + title + "\n).*?(```\n)")
	if len(block.FindAllString(doc, -1)) != 1 {
		t.Fatalf("docs/reasons.md needs one block %q", title)
	}
	var list strings.Builder
	names := map[string]bool{}
	for _, r := range reasons {
		if name := r.String(); names[name] || r.Qualified() != title+"/"+name || strings.ContainsAny(name, " /.") {
			t.Errorf("%q is no name, or the name of two", r.Qualified())
		}
		names[r.String()] = true
		fmt.Fprintf(&list, "%-20s %s\n", r, r.Sentence())
	}
	if len(names) != n {
		t.Errorf("%d reasons of %s, expected %d", len(names), title, n)
	}
	return block.ReplaceAllString(doc, "${1}"+strings.ReplaceAll(list.String(), "$", "$$")+"${2}")
}

// Each reason has a page, in lines that fit a terminal, and no page is of none.
func TestReasonPages(t *testing.T) {
	var names []string
	add := func(r reason) { names = append(names, r.Qualified()) }
	for _, r := range status.Reasons() {
		add(r)
	}
	for _, r := range transport.Reasons() {
		add(r)
	}
	for _, r := range outbound.Reasons() {
		add(r)
	}
	for _, name := range names {
		page := reasons.Page(name)
		for _, part := range []string{"*Cause.* ", "*Confirm.* ", "*Do.* "} {
			if !strings.Contains(page, part) {
				t.Errorf("docs/reasons: %s says nothing of its %s", name, part)
			}
		}
		for line := range strings.Lines(page) {
			if utf8.RuneCountInString(line) > 81 {
				t.Errorf("%s: too long for a terminal: %s", name, line)
			}
		}
	}
	for _, owner := range []string{"nic", "transport", "outbound"} {
		text, err := os.ReadFile("../../docs/reasons/" + owner + ".md")
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range regexp.MustCompile("(?m)^## (.*)$").FindAllStringSubmatch(string(text), -1) {
			if !slices.Contains(names, m[1]) {
				t.Errorf("docs/reasons: there is no reason %s", m[1])
			}
		}
	}
}
