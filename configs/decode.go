package configs

import (
	"encoding"
	"fmt"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
	"unsafe"

	"go.yaml.in/yaml/v3"

	"tapsec/internal/near"
	"tapsec/keys"
	"tapsec/sa"
)

// decoder fills structs from a tree of YAML nodes. A struct's fields are named
// by their yaml tag.
type decoder struct {
	file             string
	text             string
	root             *yaml.Node                        // the tree without the entries
	entries          *entries                          // items that are read one by one; nil: none
	undivided        bool                              // the text must be read as a whole
	failed           map[string]bool                   // paths that have a problem already
	broken           map[string]bool                   // list items with a problem in them, such as sas[0]
	types            map[reflect.Type]map[string]place // fieldsOf, remembered
	secrets          []string                          // the values of key fields
	isKey            map[string]bool                   // isKeyField, remembered
	bad, warnings    []Problem
	quoted           int // number of bad whose Text is settled
	insecureKeyFiles bool
	noKeyFiles       bool     // the text is another program's, and must not open files here
	keyFiles         []string // that were read

	known  func(*sa.SA) *sa.SA   // the SA in force that says the same, or nil; nil: none is
	fields saFields              // of the present SA
	suites map[suiteKey]sa.Suite // named so far
}

// newDecoder makes a decoder of data, which nobody may change while it is at work. Nothing of
// that stays in use afterwards.
func newDecoder(file string, data []byte) *decoder {
	return &decoder{
		file:   file,
		text:   unsafe.String(unsafe.SliceData(data), len(data)), // a copy of a large file is large
		failed: map[string]bool{},
		broken: map[string]bool{},
		types:  map[reflect.Type]map[string]place{},
		suites: map[suiteKey]sa.Suite{},
		isKey:  map[string]bool{},
	}
}

func (d *decoder) errors() Errors {
	d.quote(d.bad[d.quoted:])
	d.quoted = len(d.bad)
	sortProblems(d.bad)
	return d.bad
}

// quote sorts problems, and gives each the line that it is about. That comes last: only
// then all keys are known that no line may show.
func (d *decoder) quote(problems []Problem) {
	sortProblems(problems)
	secrets := masker(d.secrets)
	line, pos := 1, 0
	for i := range problems {
		p := &problems[i]
		for ; line < p.Line && pos < len(d.text); line++ {
			pos = nextLine(d.text, pos)
		}
		if line == p.Line {
			p.Text = strings.Clone(redactLine(strings.TrimSuffix(d.text[pos:nextLine(d.text, pos)], "\n"), secrets))
		}
	}
}

// problem describes a mistake at a node, without the line.
func (d *decoder) problem(n *yaml.Node, path, format string, args ...any) Problem {
	return Problem{File: d.file, Line: n.Line, Col: n.Column, Field: redact(path), Msg: redact(fmt.Sprintf(format, args...))}
}

// say records a mistake, only the first one of each path.
func (d *decoder) say(n *yaml.Node, path, format string, args ...any) {
	if d.failed[path] && path != "" {
		return
	}
	d.failed[path] = true
	if item, _, ok := strings.Cut(path, "]"); ok {
		d.broken[item+"]"] = true
	}
	d.bad = append(d.bad, d.problem(n, path, format, args...))
}

// node is the node of a path, or of the nearest path above it in the text.
func (d *decoder) node(path string) *yaml.Node {
	n, _ := d.find(path)
	return n
}

// find is node, and reports whether it is the path's own.
func (d *decoder) find(path string) (n *yaml.Node, own bool) {
	n = meant(d.root)
	for _, step := range strings.FieldsFunc(path, func(c rune) bool { return strings.ContainsRune(".[]", c) }) {
		next := d.child(n, step)
		if next == nil {
			return n, false
		}
		n = meant(next)
	}
	return n, true
}

// child is a field, or a numbered item; nil if there is none.
func (d *decoder) child(n *yaml.Node, step string) *yaml.Node {
	if n.Kind == yaml.MappingNode {
		return fieldOf(n, step)
	}
	i, err := strconv.Atoi(step)
	switch {
	case err != nil:
		return nil
	case d.entries != nil && n == d.entries.list && i < d.entries.len():
		return d.item(i, new(room))
	case n.Kind == yaml.SequenceNode && i < len(n.Content):
		return n.Content[i]
	}
	return nil
}

// item is an entry; nil if the text must be read as a whole after all.
func (d *decoder) item(i int, room *room) *yaml.Node {
	n := d.entries.item(i, room)
	d.undivided = d.undivided || n == nil
	return n
}

// meant is what an alias stands for; any other node itself.
func meant(n *yaml.Node) *yaml.Node {
	if n.Kind == yaml.AliasNode {
		return n.Alias
	}
	return n
}

// textField is the text of a mapping's field; empty if it has none.
func textField(n *yaml.Node, name string) string {
	if value := fieldOf(n, name); value != nil {
		return value.Value
	}
	return ""
}

// fieldOf is the value of a mapping's first field of that name; nil if it has none.
func fieldOf(n *yaml.Node, name string) *yaml.Node {
	for i := 0; n.Kind == yaml.MappingNode && i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == name {
			return n.Content[i+1]
		}
	}
	return nil
}

func (d *decoder) mistake(path, format string, args ...any) {
	d.say(d.node(path), path, format, args...)
}

func (d *decoder) warn(path, format string, args ...any) {
	d.warnings = append(d.warnings, d.problem(d.node(path), path, format, args...))
}

var yamlLine = regexp.MustCompile(`^line (\d+): `)

// syntax records that the text is not YAML. It leaves out what the parser quotes, and shows
// the line only if it begins like a field.
func (d *decoder) syntax(err error) {
	if keys.IsCapture([]byte(d.text)) {
		d.bad = append(d.bad, Problem{File: d.file, Line: 1, Col: 1, Msg: "expected YAML, found a capture, which replay, explain and show read"})
		d.quoted = len(d.bad)
		return
	}
	msg := fromText.ReplaceAllString(strings.TrimPrefix(err.Error(), "yaml: "), "${1}")
	line, column := 1, 1
	if at, what := unreadable(d.text); what != "" {
		before := d.text[:at]
		start := strings.LastIndexByte(before, '\n') + 1
		line, column, msg = strings.Count(before, "\n")+1, utf8.RuneCountInString(before[start:])+1, what
	} else if m := yamlLine.FindStringSubmatch(msg); m != nil {
		line, _ = strconv.Atoi(m[1])
		msg = strings.TrimPrefix(msg, m[0])
	}
	lines := strings.Split(d.text, "\n")
	for at := line; at <= min(line+1, len(lines)); at++ { // the parser may blame the line before
		if strings.HasPrefix(strings.TrimLeft(lines[at-1], " -"), "\t") {
			line, msg = at, "found a tab, and only spaces may indent"
			break
		}
	}
	p := d.problem(&yaml.Node{Line: line, Column: column}, "", "expected YAML: %s; mend this line or one next to it", sa.RedactLine(msg))
	if line <= len(lines) && fieldStart.MatchString(lines[line-1]) {
		p.Text = redactLine(lines[line-1], masker(d.secrets))
	}
	d.bad = append(d.bad, p)
	d.quoted = len(d.bad)
}

// unreadable finds the first byte of a text that YAML does not take (YAML 1.2, 5.1); what is
// empty if there is none.
func unreadable(text string) (at int, what string) {
	for at, r := range text {
		switch _, n := utf8.DecodeRuneInString(text[at:]); {
		case r == utf8.RuneError && n == 1:
			return at, "found a byte that is no UTF-8; save the text as UTF-8"
		case r < ' ' && r != '\t' && r != '\n' && r != '\r', r >= 0x7f && r < 0xa0 && r != 0x85, r == 0xfffe, r == 0xffff:
			return at, fmt.Sprintf("found the control character %U", r)
		}
	}
	return 0, ""
}

// learnSecrets remembers the values of key fields, so that no quoted line shows them,
// however they are laid out. Aliases are not followed: what they stand for is in the tree
// anyway.
func (d *decoder) learnSecrets(n *yaml.Node, inKey bool) {
	if n.Kind == yaml.ScalarNode && inKey && !strings.HasPrefix(n.Value, "file:") {
		for _, part := range strings.Fields(n.Value) {
			if len(part) > 3 && !hidden(part) && strings.Contains(keys.Redact(part), part) { // else masked anyway
				d.secrets = append(d.secrets, part)
			}
		}
	}
	for i, child := range n.Content {
		if n.Kind == yaml.MappingNode {
			if i%2 == 1 {
				d.learnSecrets(child, d.keyField(n.Content[i-1].Value))
			}
			continue
		}
		d.learnSecrets(child, inKey)
	}
}

// keyField is isKeyField, remembered.
func (d *decoder) keyField(name string) bool {
	is, ok := d.isKey[name]
	if !ok {
		is = isKeyField(name)
		d.isKey[strings.Clone(name)] = is
	}
	return is
}

func valueOf(v any) reflect.Value { return reflect.ValueOf(v).Elem() }

// value sets v from a node.
func (d *decoder) value(n *yaml.Node, v reflect.Value, path string) {
	n = meant(n)
	switch parse, ok := parsers[v.Type()]; {
	case v.Type() == reflect.TypeFor[sa.Key]():
		d.key(n, v, path)
		return
	case v.Type() == reflect.TypeFor[*sa.SA]():
		v.Set(reflect.ValueOf(d.sa(n, path)))
		return
	case ok:
		d.scalar(n, path, func(text string) error { return parse(text, v) })
		return
	}
	if u, ok := v.Addr().Interface().(encoding.TextUnmarshaler); ok {
		d.scalar(n, path, func(text string) error { return u.UnmarshalText([]byte(text)) })
		return
	}
	switch v.Kind() {
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		d.value(n, v.Elem(), path)
	case reflect.Struct:
		d.mapping(n, v, path)
	case reflect.Slice:
		d.list(n, v, path)
	case reflect.String:
		d.scalar(n, path, func(text string) error { v.SetString(strings.Clone(text)); return nil })
	case reflect.Bool:
		if n.Kind != yaml.ScalarNode || n.Tag != "!!bool" {
			d.say(n, path, "expected true or false, found %s", describe(n))
			return
		}
		v.SetBool(strings.EqualFold(n.Value, "true"))
	default:
		d.scalar(n, path, func(text string) error { return number(text, v) })
	}
}

// isNothing reports whether a field has no value. The word null is one: a suite.
func isNothing(n *yaml.Node) bool { return n.Tag == "!!null" && (n.Value == "" || n.Value == "~") }

// describe names what a node holds.
func describe(n *yaml.Node) string {
	switch {
	case n.Kind == yaml.MappingNode:
		return "fields"
	case n.Kind == yaml.SequenceNode:
		return "a list"
	case isNothing(n):
		return "nothing"
	}
	return sa.Quote(n.Value)
}

// scalar hands the raw text of a node to set: 0x11... is a number to YAML, and
// text to us. JSON has no hexadecimal numbers, so quotes do not matter.
func (d *decoder) scalar(n *yaml.Node, path string, set func(string) error) {
	if n.Kind != yaml.ScalarNode || isNothing(n) {
		d.say(n, path, "expected a single value, found %s", describe(n))
		return
	}
	if err := set(n.Value); err != nil {
		d.say(n, path, "%v", err)
	}
}

func number(text string, v reflect.Value) error {
	if v.CanUint() {
		n, err := strconv.ParseUint(text, 0, v.Type().Bits())
		if err != nil {
			return fmt.Errorf("expected a number from 0 to %d, found %s", ^uint64(0)>>(64-v.Type().Bits()), sa.Quote(text))
		}
		v.SetUint(n)
		return nil
	}
	n, err := strconv.ParseInt(text, 0, 32)
	if err != nil {
		return fmt.Errorf("expected a number, found %s", sa.Quote(text))
	}
	v.SetInt(n)
	return nil
}

func (d *decoder) list(n *yaml.Node, v reflect.Value, path string) {
	if d.entries != nil && n == d.entries.list {
		d.divided(v, path)
		return
	}
	if isNothing(n) {
		return // every item is commented out
	}
	if n.Kind != yaml.SequenceNode {
		d.say(n, path, "expected a list, found %s", describe(n))
		return
	}
	if len(n.Content) > 0 {
		v.Set(reflect.MakeSlice(v.Type(), len(n.Content), len(n.Content)))
	}
	for i, item := range n.Content {
		d.value(item, v.Index(i), fmt.Sprintf("%s[%d]", path, i))
	}
}

// divided is list for the items that are read one by one.
func (d *decoder) divided(v reflect.Value, path string) {
	var room room
	v.Set(reflect.MakeSlice(v.Type(), d.entries.len(), d.entries.len()))
	for i := range d.entries.len() {
		item := d.item(i, &room)
		if item == nil {
			return
		}
		d.learnSecrets(item, false)
		d.value(item, v.Index(i), path+"["+strconv.Itoa(i)+"]")
	}
}

func (d *decoder) mapping(n *yaml.Node, v reflect.Value, path string) {
	if n.Kind != yaml.MappingNode {
		d.say(n, path, "expected fields (%s), found %s", strings.Join(fieldNames(v.Type()), ", "), describe(n))
		return
	}
	if s, ok := v.Addr().Interface().(interface{ defaults() }); ok {
		s.defaults()
	}
	fields := d.types[v.Type()]
	if fields == nil {
		fields = fieldsOf(v.Type())
		d.types[v.Type()] = fields
	}
	var seen [mostFields]int // lines
	for i := 0; i+1 < len(n.Content); i += 2 {
		name := n.Content[i]
		field, ok := fields[name.Value]
		if !ok {
			d.say(name, below(path, shown(name.Value)), "there is no such field; %s", hint(name.Value, fieldNames(v.Type())))
			continue
		}
		at := below(path, name.Value)
		if first := seen[field.number]; first > 0 {
			d.bad = append(d.bad, d.problem(name, at, "the field is given twice, first in line %d; keep one", first))
		} else {
			d.value(n.Content[i+1], v.FieldByIndex(field.index), at)
		}
		seen[field.number] = name.Line
	}
}

// below is the path of a field.
func below(path, field string) string {
	if path == "" {
		return field
	}
	return path + "." + field
}

const mostFields = 48 // that any struct has

// place is where a struct has the field of a name.
type place struct {
	index  []int
	number int // of the name among all of the struct
}

// fieldsOf gives the fields of a struct by their names in the file. A field of
// the struct hides one of the same name in what it embeds.
func fieldsOf(t reflect.Type) map[string]place {
	fields := map[string]place{}
	for _, f := range reflect.VisibleFields(t) {
		name := f.Tag.Get("yaml")
		if !f.IsExported() || f.Anonymous || name == "-" {
			continue
		}
		if name == "" {
			panic(fmt.Sprintf("configs: %s.%s has no yaml tag", t, f.Name))
		}
		fields[name] = place{f.Index, len(fields)}
		if name == "dst_ports" {
			fields["ports"] = place{f.Index, len(fields)} // inbound, ports without src or dst are our own
		}
	}
	return fields
}

func fieldNames(t reflect.Type) []string {
	var names []string
	for name := range fieldsOf(t) {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// hint finds the name that was probably meant.
func hint(found string, names []string) string {
	if meant := near.Name(found, names); meant != "" {
		return fmt.Sprintf("did you mean %s?", meant)
	}
	return "there are " + strings.Join(names, ", ")
}
