// Package pages judges what is written for people: that each link leads somewhere, in the
// repository as on the site, that the site loads nothing, that pictures show what the
// program prints, and that who follows a tutorial sees what it says.
package pages

import (
	"io/fs"
	"log"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"
	"testing"

	"github.com/yuin/goldmark"
	"github.com/yuin/goldmark/ast"
	"github.com/yuin/goldmark/extension"
	"github.com/yuin/goldmark/text"

	"tapsec/test/program"
)

func TestMain(m *testing.M) {
	fetch()
	program.Main(m)
}

// fetch has Go fetch what a workspace with this module needs, since pages are followed where there
// is no network. Where that fails, the pages say so.
func fetch() {
	dir, err := os.MkdirTemp("", "tapsec-fetch-")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	clone, err := filepath.Abs(root)
	if err != nil {
		log.Fatal(err)
	}
	cmd := exec.Command("sh", "-ec", `go mod init example/fetch; go work init . "$0"; go list -deps tapsec/...`, clone)
	cmd.Dir = dir
	_ = cmd.Run()
}

// root is the repository.
const root = "../.."

// page is one in Markdown, by its path from the root.
type page struct {
	path   string
	source []byte
	ast.Node
}

// read parses a page as a forge does.
func read(t *testing.T, name string) *page {
	t.Helper()
	source, err := os.ReadFile(path.Join(root, name))
	if err != nil {
		t.Fatal(err)
	}
	markdown := goldmark.New(goldmark.WithExtensions(extension.GFM))
	return &page{name, source, markdown.Parser().Parse(text.NewReader(source))}
}

// all are the pages of the repository.
func all(t *testing.T) map[string]*page {
	t.Helper()
	pages := map[string]*page{}
	for _, name := range []string{"README.md", "CONTRIBUTING.md", "CHANGELOG.md"} {
		pages[name] = read(t, name)
	}
	err := fs.WalkDir(os.DirFS(root), "docs", func(name string, _ fs.DirEntry, err error) error {
		if strings.HasSuffix(name, ".md") {
			pages[name] = read(t, name)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return pages
}

// walk visits each node once.
func (p *page) walk(visit func(ast.Node)) {
	_ = ast.Walk(p.Node, func(n ast.Node, entering bool) (ast.WalkStatus, error) {
		if entering {
			visit(n)
		}
		return ast.WalkContinue, nil
	})
}

// plain is the text of a node, without its marks.
func (p *page) plain(n ast.Node) (s string) {
	for c := n.FirstChild(); c != nil; c = c.NextSibling() {
		if leaf, ok := c.(*ast.Text); ok {
			s += string(leaf.Segment.Value(p.source))
		} else {
			s += p.plain(c)
		}
	}
	return s
}
