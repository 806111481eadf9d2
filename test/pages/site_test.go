package pages

import (
	"bytes"
	"io/fs"
	"net/url"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"golang.org/x/net/html"

	"tapsec/test/program"
	"tapsec/test/testkit"
)

// site is what make site leaves: the ids of each page, and that a file is there.
type site struct {
	dir   string
	files map[string]map[string]bool
}

func build(t *testing.T) *site {
	t.Helper()
	testkit.Programs(t, "hugo")
	for _, dir := range []string{"", "docs", "docs/reasons", "docs/decisions", "docs/tutorials", "docs/site", "docs/site/style", "docs/site/layouts/_default",
		"docs/site/layouts/_default/_markup", "docs/site/layouts/partials"} {
		program.Watch(t, path.Join(root, dir))
	}
	s := &site{t.TempDir(), map[string]map[string]bool{}}
	if said, err := exec.Command(root+"/docs/site/build", s.dir).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, said)
	}
	err := fs.WalkDir(os.DirFS(s.dir), ".", func(name string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			s.files[name] = map[string]bool{}
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for name := range s.files {
		s.each(t, name, func(_ *html.Node, a html.Attribute) {
			if a.Key == "id" && s.files[name][a.Val] {
				t.Errorf("%s: two ids %s", name, a.Val)
			} else if a.Key == "id" {
				s.files[name][a.Val] = true
			}
		})
	}
	return s
}

// each visits each attribute of a page.
func (s *site) each(t *testing.T, name string, visit func(*html.Node, html.Attribute)) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(s.dir, name))
	if err != nil {
		t.Fatal(err)
	}
	if path.Ext(name) != ".html" || name == "judge.html" { // which internal/web/build judges
		return
	}
	top, err := html.Parse(bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	for n := range top.Descendants() {
		for _, a := range n.Attr {
			visit(n, a)
		}
		if n.Type == html.ElementNode && (n.Data == "script" || n.Data == "style" || n.Data == "iframe") {
			t.Errorf("%s has an element %s", name, n.Data)
		}
	}
}

// wrong says what is wrong with where a page leads.
func (s *site) wrong(from, link string) string {
	to, err := url.Parse(link)
	if err != nil {
		return err.Error()
	}
	if to.IsAbs() || to.Host != "" || strings.HasPrefix(to.Path, "/") {
		return "not of this site"
	}
	name := from
	if to.Path != "" {
		name = path.Join(path.Dir(from), to.Path)
	}
	ids, there := s.files[name]
	switch {
	case !there:
		return "no such file"
	case to.Fragment != "" && !ids[to.Fragment]:
		return "no such id"
	}
	return ""
}

var (
	loads  = map[string]bool{"src": true, "href": true, "srcset": true, "data": true, "poster": true, "action": true, "background": true, "style": true}
	remote = regexp.MustCompile(`(?i)url\(|@import|https?:|<script|<image|<foreignobject`)
)

// TestSite: the site has every page, each of its links leads somewhere, and whoever reads
// it asks nobody else for anything.
func TestSite(t *testing.T) {
	s := build(t)
	for name := range all(t) {
		name = strings.TrimSuffix(strings.TrimSuffix(name, ".md"), "/README") + ".html"
		if name == "README.html" {
			name = "index.html"
		}
		if s.files[name] == nil {
			t.Errorf("the site lacks %s", name)
		}
	}
	for _, name := range []string{"commands/tapsec_run.html", "commands/tapsec_sa_add.html", "style.css"} {
		if s.files[name] == nil {
			t.Errorf("the site lacks %s", name)
		}
	}
	links := 0
	for name := range s.files {
		s.each(t, name, func(n *html.Node, a html.Attribute) {
			if !loads[a.Key] || n.Data == "a" && strings.HasPrefix(a.Val, "https://") {
				return
			}
			links++
			if wrong := s.wrong(name, a.Val); wrong != "" {
				t.Errorf("%s: %s %s=%s: %s", name, n.Data, a.Key, a.Val, wrong)
			}
		})
		if ext := path.Ext(name); ext == ".css" || ext == ".svg" {
			text, err := os.ReadFile(filepath.Join(s.dir, name))
			if found := remote.Find(bytes.ReplaceAll(text, []byte("http://www.w3.org/2000/svg"), nil)); err != nil || found != nil {
				t.Errorf("%s loads something: %s %v", name, found, err)
			}
		}
	}
	if links < 2000 {
		t.Errorf("only %d links were looked at", links)
	}
}
