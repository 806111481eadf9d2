package house

import (
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"

	"tapsec/internal/event"
)

// docs/events.md has every event with its sentence and its fields.
func TestEventsDocument(t *testing.T) {
	const path = "../../docs/events.md"
	doc, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var list strings.Builder
	names := map[string]bool{}
	for _, k := range event.Kinds() {
		if names[k.String()] || !regexp.MustCompile(`^[a-z]+(-[a-z]+)*$`).MatchString(k.String()) || k.Sentence() == "" {
			t.Errorf("%q is no name, or that of two, or says nothing: %q", k, k.Sentence())
		}
		names[k.String()] = true
		fmt.Fprintf(&list, "| `%s` | %s | %s |\n", k, k.Sentence(), strings.Join(k.Fields(), ", "))
	}
	table := regexp.MustCompile(`(\|---\|---\|---\|\n)(\|.*\n)*`)
	want := table.ReplaceAllString(string(doc), "${1}"+strings.ReplaceAll(list.String(), "$", "$$"))
	if *update {
		err = os.WriteFile(path, []byte(want), 0o644)
	} else if want != string(doc) {
		err = fmt.Errorf("%s is out of date: run go test ./test/house -update", path)
	}
	if err != nil {
		t.Error(err)
	}
}
