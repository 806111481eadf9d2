// Mutate breaks a package in one place after the other and says which breaks its
// tests did not notice:
//
//	go run ./test/mutate -n 100 ./wire
//	go run ./test/mutate -tests ./wire,./pipeline ./wire
//
// A break is an operator turned round, a bound moved by one, a condition negated or a
// statement left out. The checkout is not touched: go builds with another text of one
// file. Breaks that do not compile are not counted; a test that runs for more than a
// minute has noticed. Of all breaks -n are drawn by -seed.
package main

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"go/ast"
	"go/build"
	"go/parser"
	"go/token"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
)

func main() {
	n := flag.Int("n", 0, "how many breaks to draw; 0 is all")
	seed := flag.Uint64("seed", 1, "draws others")
	workers := flag.Int("p", 2, "how many to try at once")
	tests := flag.String("tests", "", "packages whose tests are to notice, with commas; the broken one where empty")
	flag.Parse()
	if flag.NArg() != 1 {
		flag.Usage()
		os.Exit(2)
	}
	all, err := breaks(flag.Arg(0))
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	rand.New(rand.NewPCG(*seed, 0)).Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	if *n > 0 {
		all = all[:min(*n, len(all))]
	}
	judges := strings.Split(*tests, ",")
	if *tests == "" {
		judges = flag.Args()
	}
	runs := make([][]string, len(judges))
	for i, judge := range judges {
		if runs[i], err = command(judge); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	counts := try(all, runs, *workers)
	fmt.Printf("%s: %d breaks, %d noticed, %d not, %d did not compile\n",
		flag.Arg(0), len(all), counts[noticed], counts[survived], counts[invalid])
}

// command is how the tests of a package run: rapid is kept from leaving what it found
// in the checkout.
func command(judge string) ([]string, error) {
	imports, err := exec.Command("go", "list", "-f", "{{.TestImports}} {{.XTestImports}}", judge).CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("%s: %s", judge, imports)
	}
	args := []string{judge}
	if bytes.Contains(imports, []byte("pgregory.net/rapid")) {
		args = append(args, "-rapid.nofailfile")
	}
	return args, nil
}

// mutant is a file with a stretch replaced.
type mutant struct {
	file     string
	at       token.Position
	from, to int // offsets
	text     string
	source   []byte
}

func (m *mutant) String() string {
	text := m.text
	if text == "" {
		text = "nothing"
	}
	return fmt.Sprintf("%s:%d:%d: %s -> %s", m.at.Filename, m.at.Line, m.at.Column, m.source[m.from:m.to], text)
}

// breaks lists those of all files of a package that are built here, but its tests.
func breaks(dir string) (all []*mutant, err error) {
	p, err := build.ImportDir(dir, 0)
	if err != nil {
		return nil, err
	}
	for _, name := range p.GoFiles {
		name = filepath.Join(dir, name)
		source, err := os.ReadFile(name)
		if err != nil {
			return nil, err
		}
		set := token.NewFileSet()
		f, err := parser.ParseFile(set, name, source, parser.SkipObjectResolution)
		if err != nil {
			return nil, err
		}
		ast.Inspect(f, func(n ast.Node) bool {
			for _, c := range changes(n) {
				at := set.Position(c.from)
				all = append(all, &mutant{name, at, at.Offset, set.Position(c.to).Offset, c.text, source})
			}
			return true
		})
	}
	return all, nil
}

// change puts another text in the place of some.
type change struct {
	from, to token.Pos
	text     string
}

// turned is what takes an operator's place.
var turned = map[token.Token][]string{
	token.LSS: {"<="}, token.LEQ: {"<"}, token.GTR: {">="}, token.GEQ: {">"}, token.EQL: {"!="}, token.NEQ: {"=="},
	token.ADD: {"-"}, token.SUB: {"+"}, token.AND: {"|"}, token.OR: {"&"}, token.SHL: {">>"}, token.SHR: {"<<"},
	token.LAND: {"||"}, token.LOR: {"&&"}, token.AND_NOT: {"&"}, token.REM: {"/"}, token.QUO: {"*"},
	token.ADD_ASSIGN: {"-=", "="}, token.SUB_ASSIGN: {"+="}, token.OR_ASSIGN: {"="},
}

// changes are the breaks of one node.
func changes(n ast.Node) (all []change) {
	operator := func(at token.Pos, op token.Token) {
		for _, text := range turned[op] {
			all = append(all, change{at, at + token.Pos(len(op.String())), text})
		}
	}
	switch n := n.(type) {
	case *ast.BinaryExpr:
		operator(n.OpPos, n.Op)
	case *ast.AssignStmt:
		operator(n.TokPos, n.Tok)
		if n.Tok != token.DEFINE {
			all = append(all, change{n.Pos(), n.End(), ""})
		}
	case *ast.ExprStmt:
		all = append(all, change{n.Pos(), n.End(), ""})
	case *ast.IncDecStmt:
		all = append(all, change{n.Pos(), n.End(), ""})
	case *ast.IfStmt:
		switch c := n.Cond.(type) {
		case *ast.BinaryExpr: // has an operator to turn
		case *ast.UnaryExpr:
			all = append(all, change{c.Pos(), c.X.Pos(), ""})
		default:
			all = append(all, change{c.Pos(), c.Pos(), "!"})
		}
	case *ast.BasicLit:
		if v, err := strconv.ParseUint(n.Value, 0, 63); n.Kind == token.INT && err == nil {
			all = append(all, change{n.Pos(), n.End(), strconv.FormatUint(v+1, 10)})
		}
	}
	return all
}

// fate is what became of a break.
type fate int

const (
	noticed fate = iota
	survived
	invalid
	numFates
)

// try tells of each break that no judge noticed.
func try(all []*mutant, runs [][]string, workers int) (counts [numFates]int) {
	var mu sync.Mutex
	var running sync.WaitGroup
	next := make(chan *mutant)
	for range workers {
		running.Go(func() {
			for m := range next {
				f := m.try(runs)
				mu.Lock()
				counts[f]++
				if f == survived {
					fmt.Println(m)
				}
				mu.Unlock()
			}
		})
	}
	for _, m := range all {
		next <- m
	}
	close(next)
	running.Wait()
	return counts
}

func (m *mutant) try(runs [][]string) fate {
	dir, err := os.MkdirTemp("", "mutate-")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	whole, err := filepath.Abs(m.file)
	if err != nil {
		panic(err)
	}
	broken := filepath.Join(dir, "broken.go")
	text := string(m.source[:m.from]) + m.text + string(m.source[m.to:])
	overlay, _ := json.Marshal(map[string]any{"Replace": map[string]string{whole: broken}})
	for name, text := range map[string][]byte{broken: []byte(text), filepath.Join(dir, "overlay"): overlay} {
		if err := os.WriteFile(name, text, 0o600); err != nil {
			panic(err)
		}
	}
	for _, run := range runs {
		args := append([]string{"test", "-failfast", "-vet=off", "-timeout=1m", "-overlay", filepath.Join(dir, "overlay")}, run...)
		out, err := exec.Command("go", args...).CombinedOutput()
		switch {
		case err == nil:
		case bytes.Contains(out, []byte("[build failed]")) || bytes.Contains(out, []byte("[setup failed]")):
			return invalid
		default:
			return noticed
		}
	}
	return survived
}
