package pages

import (
	"fmt"
	"maps"
	"net/url"
	"os"
	"path"
	"slices"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/yuin/goldmark/ast"
)

// anchors are those that a forge gives to a page's headings: lower case, without
// punctuation, and with a number from the second of the same name on.
func (p *page) anchors() map[string]bool {
	found := map[string]bool{}
	p.walk(func(n ast.Node) {
		if n.Kind() != ast.KindHeading {
			return
		}
		name := strings.Map(func(r rune) rune {
			switch {
			case r == ' ':
				return '-'
			case r == '-' || r == '_' || unicode.IsLetter(r) || unicode.IsNumber(r):
				return unicode.ToLower(r)
			}
			return -1
		}, p.plain(n))
		unique := name
		for i := 1; found[unique]; i++ {
			unique = fmt.Sprint(name, "-", i)
		}
		found[unique] = true
	})
	return found
}

// links are all destinations of links and pictures of a page.
func (p *page) links() (all []string) {
	p.walk(func(n ast.Node) {
		switch n := n.(type) {
		case *ast.Link:
			all = append(all, string(n.Destination))
		case *ast.Image:
			all = append(all, string(n.Destination))
		}
	})
	return all
}

// TestLinks: a link within the repository leads to a file, and to a heading of it where it
// names one.
func TestLinks(t *testing.T) {
	pages := all(t)
	for _, p := range pages {
		for _, link := range p.links() {
			if wrong := wrong(pages, p, link); wrong != "" {
				t.Errorf("%s: %s: %s", p.path, link, wrong)
			}
		}
	}
}

func wrong(pages map[string]*page, from *page, link string) string {
	to, err := url.Parse(link)
	switch {
	case err != nil:
		return err.Error()
	case to.IsAbs() && to.Scheme != "https":
		return "elsewhere only by https"
	case to.IsAbs():
		return ""
	}
	name := from.path
	if to.Path != "" {
		name = path.Join(path.Dir(from.path), to.Path)
	}
	if info, err := os.Stat(path.Join(root, name)); err != nil || info.IsDir() {
		return "no such file"
	}
	if p := pages[name]; to.Fragment != "" && (p == nil || !p.anchors()[to.Fragment]) {
		return "no such heading"
	}
	return ""
}

// TestAllListed: docs/README.md, which the site has beside each page, leads to every page.
func TestAllListed(t *testing.T) {
	pages := all(t)
	listed := []string{"docs/README.md"}
	for _, link := range pages["docs/README.md"].links() {
		listed = append(listed, path.Join("docs", link))
	}
	for _, name := range slices.Sorted(maps.Keys(pages)) {
		if !slices.Contains(listed, name) {
			t.Errorf("docs/README.md does not lead to %s", name)
		}
	}
}

// TestLines: the front page is read as text, too, so that only tables have long lines.
func TestLines(t *testing.T) {
	const most = 125
	text, err := os.ReadFile(root + "/README.md")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for line := range strings.Lines(string(text)) {
		if n++; utf8.RuneCountInString(strings.TrimSuffix(line, "\n")) > most && !strings.HasPrefix(line, "|") {
			t.Errorf("README.md:%d is longer than %d columns", n, most)
		}
	}
}
