// Matrix makes the table of docs/interop.md of what the tests of the peers wrote
// down. With -check it changes nothing, and fails where the table says otherwise:
// a peer's version may differ, a verdict may not.
package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"tapsec/test/interop"
)

const (
	begin = "<!-- matrix: made by `make interop` -->\n"
	end   = "<!-- end of the matrix -->\n"
)

func main() {
	check := flag.Bool("check", false, "compare, and fail on a difference")
	flag.Parse()
	if flag.NArg() != 2 {
		fmt.Fprintln(os.Stderr, "usage: matrix [-check] FOLDER DOCUMENT")
		os.Exit(2)
	}
	if err := run(flag.Arg(0), flag.Arg(1), *check); err != nil {
		fmt.Fprintln(os.Stderr, "matrix:", err)
		os.Exit(1)
	}
}

func run(folder, document string, check bool) error {
	lines, err := read(folder)
	if err != nil {
		return err
	}
	text, err := os.ReadFile(document)
	if err != nil {
		return err
	}
	before, rest, ok1 := strings.Cut(string(text), begin)
	old, after, ok2 := strings.Cut(rest, end)
	if !ok1 || !ok2 {
		return fmt.Errorf("%s has not the two lines that the matrix goes between", document)
	}
	if check {
		return compare(withoutVersions(old), withoutVersions(table(lines)))
	}
	return os.WriteFile(document, []byte(before+begin+table(lines)+end+after), 0o644)
}

// read gives the lines of all peers, ordered by peer.
func read(folder string) (lines []interop.Line, err error) {
	files, err := filepath.Glob(filepath.Join(folder, "*.jsonl"))
	if err != nil || len(files) == 0 {
		return nil, fmt.Errorf("no peer has written anything to %s", folder)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		for d := json.NewDecoder(bytes.NewReader(text)); ; {
			var l interop.Line
			if err := d.Decode(&l); errors.Is(err, io.EOF) {
				break
			} else if err != nil {
				return nil, fmt.Errorf("%s: %w", file, err)
			}
			lines = append(lines, l)
		}
	}
	return lines, nil
}

func table(lines []interop.Line) string {
	var b strings.Builder
	fmt.Fprintf(&b, "\n| peer | what | way | frames | said |\n|---|---|---|---|---|\n")
	for _, l := range lines {
		fmt.Fprintf(&b, "| %s %s | %s | %s | %s | %s |\n", l.Peer, l.Version, l.What, l.Way, l.Frames, l.Said)
	}
	return b.String() + "\n"
}

// withoutVersions takes the last word off each peer.
func withoutVersions(table string) (rows []string) {
	for row := range strings.Lines(table) {
		cells := strings.SplitN(strings.TrimSpace(row), " | ", 2)
		if i := strings.LastIndexByte(cells[0], ' '); len(cells) == 2 && i > 0 {
			cells[0] = cells[0][:i]
		}
		rows = append(rows, strings.Join(cells, " | "))
	}
	return rows
}

// compare says which rows only one of two tables has.
func compare(old, made []string) error {
	var differ []string
	for _, d := range []struct {
		mark     string
		in, than []string
	}{{"-", old, made}, {"+", made, old}} {
		seen := map[string]int{}
		for _, row := range d.than {
			seen[row]++
		}
		for _, row := range d.in {
			if seen[row]--; seen[row] < 0 {
				differ = append(differ, d.mark+" "+row)
			}
		}
	}
	if differ != nil {
		return fmt.Errorf("this run says otherwise than the document; where it is right, make interop writes it there:\n%s", strings.Join(differ, "\n"))
	}
	return nil
}
