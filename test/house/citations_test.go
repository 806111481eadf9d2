package house

import (
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const root = "../.."

// Whatever cites the contract, a decision or another page cites what is there:
// comments of Go files and scripts, and all of the Makefile and the pages.
func TestCitations(t *testing.T) {
	c := readContract(t)
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil || d.IsDir() && strings.HasPrefix(d.Name(), ".git"):
			return cmpErr(err, d)
		case d.IsDir():
			return nil
		}
		for _, text := range cites(t, path) {
			for _, wrong := range c.wrong(text) {
				t.Errorf("%s: %s", strings.TrimPrefix(path, root+"/"), wrong)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func cmpErr(err error, d fs.DirEntry) error {
	if err == nil && d.IsDir() {
		return fs.SkipDir
	}
	return err
}

// cites are the texts of a file that may cite, each on one line.
func cites(t *testing.T, path string) (texts []string) {
	t.Helper()
	switch ext := filepath.Ext(path); {
	case ext == ".go":
		f, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		for _, group := range f.Comments {
			texts = append(texts, group.Text())
		}
	case ext == ".md" || ext == ".py" || ext == ".sh" || ext == ".yaml" || filepath.Base(path) == "Makefile":
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		texts = []string{strings.ReplaceAll(string(b), "\n#", "\n")}
	}
	for i, text := range texts {
		texts[i] = strings.Join(strings.Fields(text), " ")
	}
	return texts
}

// contract is what docs/contract.md has to be cited: "contract row 23 a",
// "contract, SA lookup", "contract, The transport, steps 2 and 3".
type contract struct {
	rows  []string
	steps map[string][]string // by title
}

func readContract(t *testing.T) *contract {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(root, "docs/contract.md"))
	if err != nil {
		t.Fatal(err)
	}
	c := &contract{steps: map[string][]string{}}
	for _, m := range regexp.MustCompile(`(?m)^\| (\d+b?) \| \D`).FindAllStringSubmatch(string(b), -1) {
		c.rows = append(c.rows, m[1])
	}
	for _, section := range regexp.MustCompile(`(?m)^##+ `).Split(string(b), -1)[1:] {
		title, text, _ := strings.Cut(section, "\n")
		c.steps[title] = []string{}
		for _, m := range regexp.MustCompile(`(?m)^(\d+)\. `).FindAllStringSubmatch(text, -1) {
			c.steps[title] = append(c.steps[title], m[1])
		}
	}
	for _, m := range regexp.MustCompile(`(?m)^- ([a-e])\. `).FindAllStringSubmatch(string(b), -1) {
		c.rows = append(c.rows, "23 "+m[1])
	}
	if len(c.rows) < 35+5 || len(c.steps["The transport"]) < 8 {
		t.Fatalf("docs/contract.md has another form: rows %q, sections %q", c.rows, c.steps)
	}
	return c
}

var (
	rowsCited    = regexp.MustCompile(`\brows? ((?:(?:, | to | and |-)?\d+(?:b| [a-e]\b)?)+)`)
	rowCited     = regexp.MustCompile(`\d+(?:b| [a-e]\b)?`)
	titleCited   = regexp.MustCompile(`(?:\b[Cc]ontract, |docs/contract.md, )([A-Z][^.;:)(]*)|^Contract, ([^.;:)(]+)|\(contract, ([^.;:)(]+)`)
	stepsCited   = regexp.MustCompile(`^, steps? (\d(?:(?:, | and | to )\d)*)`)
	numberCited  = regexp.MustCompile(`\b[Cc]ontract,? (?:§|section |sections )?\d[^ ]*|\b[Cc]ontract section [^.;)]*`)
	sectionCited = regexp.MustCompile(`\bsections? \d[\d.]*`)
	authority    = regexp.MustCompile(`RFC|SP 800|FIPS|draft|NIST|IEEE`)
	pageCited    = regexp.MustCompile(`[\w./-]*\b[\w-]+\.md\b|\bdecisions?[/ ]\d{4}[\w-]*`)
)

// wrong lists what a text cites that is not there.
func (c *contract) wrong(text string) (all []string) {
	for _, m := range rowsCited.FindAllStringSubmatch(text, -1) {
		for _, row := range rowCited.FindAllString(m[1], -1) {
			if !slices.Contains(c.rows, row) {
				all = append(all, "the contract has no row "+row+": "+m[0])
			}
		}
	}
	for _, m := range titleCited.FindAllStringSubmatch(text, -1) {
		if !c.has(m[1] + m[2] + m[3]) {
			all = append(all, "the contract has no such section or step: "+m[0])
		}
	}
	for _, m := range numberCited.FindAllString(text, -1) {
		all = append(all, "the contract's sections have titles and no numbers: "+m)
	}
	for _, at := range sectionCited.FindAllStringIndex(text, -1) {
		if !authority.MatchString(text[:at[0]]) {
			all = append(all, "a section of what? "+text[at[0]:at[1]])
		}
	}
	for _, m := range pageCited.FindAllString(text, -1) {
		if !there(m) {
			all = append(all, "no such page: "+m)
		}
	}
	return all
}

// has reports whether a citation begins with a title of the contract's, and whether
// that section has the steps that are cited.
func (c *contract) has(citation string) bool {
	for title, steps := range c.steps {
		rest, ok := strings.CutPrefix(citation, title)
		if !ok {
			continue
		}
		if m := stepsCited.FindStringSubmatch(rest); m != nil {
			for _, step := range strings.FieldsFunc(m[1], func(r rune) bool { return r < '0' || r > '9' }) {
				ok = ok && slices.Contains(steps, step)
			}
		}
		return ok
	}
	return false
}

// there reports whether a page stands in docs or docs/decisions, or where it says, of a
// tutorial, too.
func there(page string) bool {
	name := strings.TrimPrefix(filepath.Base(strings.ReplaceAll(page, " ", "/")), "docs/")
	for _, place := range []string{page, "docs/" + page, "docs/tutorials/" + page, "docs/decisions/" + name + "*", name} {
		if found, _ := filepath.Glob(filepath.Join(root, place)); len(found) > 0 {
			return true
		}
	}
	return false
}
