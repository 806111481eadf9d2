package cli

import (
	"bufio"
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"tapsec/configs"
	"tapsec/internal/doctor"
	"tapsec/internal/explain"
	"tapsec/internal/inspect"
	"tapsec/internal/lab/bench"
	"tapsec/internal/lab/conformance"
	"tapsec/internal/lab/rig"
	"tapsec/internal/shadow"
)

// docs/json.md names each field that a command prints, and no other one.
func TestJSONDocument(t *testing.T) {
	documented := documentedNames(t)
	for section, printed := range map[string][]string{
		"replay --json":                framesNames(t),
		"explain --json":               typeNames(explain.Document{}),
		"trace --json":                 slices.DeleteFunc(typeNames(explain.Traced{}), func(n string) bool { return slices.Contains(typeNames(explain.Document{}), n) }),
		"replay --summary-only --json": typeNames(inspect.Summary{}),
		"doctor --json":                typeNames(doctor.Diagnosis{}),
		"validate --json":              typeNames(configs.Judgement{}),
		"rig status --json":            typeNames(rig.Reports{}),
		"conformance --json":           typeNames(conformance.Document{}),
		"bench --json":                 typeNames(bench.Report{}),
		"shadow --json":                typeNames(shadow.Report{}),
		"version --json":               typeNames(build{}),
	} {
		for _, name := range printed {
			if !regexp.MustCompile(`^[a-z0-9_.\[\]]+$`).MatchString(name) {
				t.Errorf("%s prints %s, expected lower-case letters, digits and _", section, name)
			}
		}
		for _, name := range printed {
			if !slices.Contains(documented[section], name) {
				t.Errorf("%s prints %s, of which docs/json.md says nothing", section, name)
			}
		}
		for _, name := range documented[section] {
			if !slices.Contains(printed, name) {
				t.Errorf("docs/json.md has %s for %s, which is not printed", name, section)
			}
		}
		delete(documented, section)
	}
	delete(documented, "Of a running NIC") // TestJSONCommands
	for section := range documented {
		t.Errorf("docs/json.md speaks of %s, which nobody looks at", section)
	}
}

// Each command with --json has a section of docs/json.md, or a row there that names a part of
// docs/control.md.
func TestJSONCommands(t *testing.T) {
	page, socket := string(file(t, "../../docs/json.md")), string(file(t, "../../docs/control.md"))
	_, table, _ := strings.Cut(page, "\n## Of a running NIC\n")
	for cmd := range commands(newRoot()) {
		if cmd.Flags().Lookup("json") == nil {
			continue
		}
		name := strings.TrimPrefix(cmd.CommandPath(), "tapsec ") + " --json"
		_, row, listed := strings.Cut(table, "\n| `"+name+"` | ")
		row, _, _ = strings.Cut(row, "\n")
		asked := regexp.MustCompile("GET [a-z/]+").FindString(row)
		switch {
		case strings.Contains(page, "\n## "+name+"\n"):
		case !listed:
			t.Errorf("docs/json.md says nothing of %s", name)
		case asked == "" && row != "likewise |" || !strings.Contains(socket, "\n## "+asked):
			t.Errorf("%s is what docs/control.md has as %q, which it has not", name, asked)
		}
	}
}

// documentedNames are the names by section.
func documentedNames(t *testing.T) map[string][]string {
	names, section := map[string][]string{}, ""
	row := regexp.MustCompile("^\\| `([^`]+)` \\|")
	for line := range strings.Lines(string(file(t, "../../docs/json.md"))) {
		line = strings.TrimSpace(line)
		if title, ok := strings.CutPrefix(line, "## "); ok {
			section = title
		}
		if m := row.FindStringSubmatch(line); m != nil {
			names[section] = append(names[section], m[1])
		}
	}
	return names
}

// typeNames are the paths of what encoding/json makes of a value's type. Objects that
// are nothing but a folder for others have no path of their own.
func typeNames(v any) (names []string) {
	var walk func(path string, t reflect.Type)
	walk = func(path string, t reflect.Type) {
		switch {
		case t.Kind() == reflect.Pointer:
			walk(path, t.Elem())
		case t.Kind() == reflect.Slice && isObject(t.Elem()):
			if path != "" {
				names = append(names, path)
			}
			walk(path+"[]", t.Elem())
		case isObject(t):
			for _, f := range reflect.VisibleFields(t) {
				name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
				if name == "" || name == "-" || shadowed(t, f) {
					continue
				}
				walk(strings.TrimPrefix(path+"."+name, "."), f.Type)
			}
		default:
			names = append(names, path)
		}
	}
	walk("", reflect.TypeOf(v))
	return names
}

// isObject reports whether a type is a struct with names.
func isObject(t reflect.Type) bool {
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	_, text := reflect.PointerTo(t).MethodByName("MarshalText")
	return t.Kind() == reflect.Struct && !text
}

// shadowed reports whether a shallower field has the same name.
func shadowed(t reflect.Type, f reflect.StructField) bool {
	return slices.ContainsFunc(reflect.VisibleFields(t), func(o reflect.StructField) bool {
		return o.Tag.Get("json") == f.Tag.Get("json") && len(o.Index) < len(f.Index)
	})
}

// framesNames are the paths that replay prints of our captures, and of one that was
// cut short.
func framesNames(t *testing.T) []string {
	names := map[string]bool{}
	short := file(t, "testdata/plain.pcap")
	short = append([]byte{}, short...)
	last := len(pcap(nil)) // the first record, whose length on the wire grows
	short[last+12]++
	cut := filepath.Join(t.TempDir(), "cut.pcap")
	if err := os.WriteFile(cut, short, 0o600); err != nil {
		t.Fatal(err)
	}
	for capture, config := range map[string]string{
		"testdata/plain.pcap": "testdata/plain.yaml", samples + "/layers.pcapng": samples + "/layers.yaml", cut: "testdata/plain.yaml",
		"testdata/pppoe.pcap": samples + "/layers.yaml",
	} {
		out, _, err := command("", "replay", "--json", "--carriers", "-c", config, capture)
		if err != nil {
			t.Fatal(err)
		}
		for in := bufio.NewScanner(strings.NewReader(out)); in.Scan(); {
			var frame map[string]any
			if err := json.Unmarshal(in.Bytes(), &frame); err != nil {
				t.Fatalf("%v: %s", err, in.Text())
			}
			valueNames("", frame, names)
		}
	}
	return slices.Sorted(maps.Keys(names))
}

func valueNames(path string, v any, names map[string]bool) {
	if path != "" && !strings.HasSuffix(path, "[]") {
		names[path] = true
	}
	switch v := v.(type) {
	case map[string]any:
		for name, inner := range v {
			valueNames(strings.TrimPrefix(path+"."+name, "."), inner, names)
		}
	case []any:
		for _, inner := range v {
			valueNames(path+"[]", inner, names)
		}
	}
}
