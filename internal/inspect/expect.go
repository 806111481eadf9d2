package inspect

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"reflect"
	"slices"
	"strings"
)

// Expectation is what a Summary has to say. The zero Expectation demands that every frame
// with AH or ESP is good, and that there is one.
type Expectation struct{ fields map[string]any }

// LoadExpectation reads what the flag --expect names: all-good (or nothing), or a file for
// parseExpectation.
func LoadExpectation(path string) (Expectation, error) {
	if path == "" || path == "all-good" {
		return Expectation{}, nil
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return Expectation{}, fmt.Errorf("--expect: expected all-good or a file: %w", err)
	}
	e, err := parseExpectation(text)
	if err != nil {
		err = fmt.Errorf("--expect %s: %w", path, err)
	}
	return e, err
}

// parseExpectation reads the JSON of an earlier summary, or part of one; what it leaves
// out may be anything. SAs are identified by the names, protocols and SPIs that it gives.
func parseExpectation(text []byte) (Expectation, error) {
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(&Summary{}); err != nil {
		found := strings.TrimPrefix(err.Error(), "json: ")
		switch wrong := (*json.UnmarshalTypeError)(nil); {
		case errors.As(err, &wrong): // it tells of Go's types
			found = strings.TrimPrefix(wrong.Field+": ", ": ") + "found a " + wrong.Value
		case len(bytes.TrimSpace(text)) == 0:
			found = "found nothing"
		case errors.As(err, new(*json.SyntaxError)), errors.Is(err, io.ErrUnexpectedEOF):
			found = "found text that is not JSON"
		}
		return Expectation{}, fmt.Errorf("expected a summary, as --summary-only --json prints it, or a part of one: %s", found)
	}
	if d.More() {
		return Expectation{}, errors.New("expected one summary, found more after it")
	}
	var e Expectation
	if err := decode(text, &e.fields); err != nil {
		return e, err
	}
	if len(e.fields) == 0 {
		return e, errors.New("expected a summary, or a part of one, found no field")
	}
	return e, nil
}

// decode keeps numbers as they are written.
func decode(text []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	return d.Decode(v)
}

// Check returns an error with a line for each difference of a summary, the first 20.
func (e Expectation) Check(s *Summary) error {
	all := e.differences(s)
	if len(all) == 0 {
		return nil
	}
	const most = 20
	text := strings.Join(all[:min(most, len(all))], "\n  ")
	if more := len(all) - most; more > 0 {
		text += fmt.Sprintf("\n  and %d more", more)
	}
	return errors.New(text)
}

func (e Expectation) differences(s *Summary) (all []string) {
	if e.fields == nil {
		return notAllGood(s)
	}
	text, err := json.Marshal(s)
	if err != nil {
		panic("inspect: " + err.Error()) // it has only numbers and texts
	}
	var found map[string]any
	if err := decode(text, &found); err != nil {
		panic("inspect: " + err.Error())
	}
	compare("", e.fields, found, &all)
	return all
}

func notAllGood(s *Summary) (all []string) {
	say := func(n uint64, what string) {
		if n > 0 {
			all = append(all, fmt.Sprintf("expected all frames good, found %d %s", n, what))
		}
	}
	say(s.Failed, "failed")
	say(s.Frames-s.Judged, "not judged")
	say(s.Unopened, "left alone with AH or ESP")
	if s.Good == 0 {
		all = append(all, "expected good frames, found none")
	}
	return all
}

// compare compares whatever is expected.
func compare(path string, want, got any, all *[]string) {
	switch want := want.(type) {
	case map[string]any:
		got, _ := got.(map[string]any)
		for _, name := range slices.Sorted(maps.Keys(want)) {
			inner, ok := got[name]
			if !ok {
				inner = json.Number("0") // nothing failed for this reason
			}
			compare(path+"."+name, want[name], inner, all)
		}
		return
	case []any:
		if path == ".sas" {
			compareSAs(want, got, all)
			return
		}
	}
	if !reflect.DeepEqual(want, got) {
		*all = append(*all, fmt.Sprintf("expected %s %s, found %s", path[1:], text(want), text(got)))
	}
}

func compareSAs(want []any, got any, all *[]string) {
	rows, _ := got.([]any)
	for n, w := range want {
		w, _ := w.(map[string]any)
		path := fmt.Sprintf(".sas[%d]", n)
		if name, _ := w["sa"].(string); name != "" {
			path = ".sas." + name
		}
		found := slices.IndexFunc(rows, func(row any) bool { return isSA(row.(map[string]any), w) })
		if found < 0 {
			*all = append(*all, fmt.Sprintf("expected %s, found no frame of it", path[1:]))
			continue
		}
		compare(path, w, rows[found], all)
		rows = slices.Delete(slices.Clone(rows), found, found+1)
	}
}

func isSA(row, want map[string]any) bool {
	for _, field := range []string{"sa", "protocol", "spi", "src", "dst"} {
		if v, ok := want[field]; ok && v != row[field] {
			return false
		}
	}
	return true
}

func text(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		panic("inspect: " + err.Error()) // it was JSON
	}
	return string(b)
}
