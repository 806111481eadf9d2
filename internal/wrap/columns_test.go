package wrap_test

import (
	"fmt"
	"strings"
	"testing"

	"tapsec/internal/wrap"
)

// Columns are aligned, and the last cell is broken where a terminal ends.
func TestColumns(t *testing.T) {
	var out strings.Builder
	w := wrap.NewColumns(&out)
	fmt.Fprintf(w, "a title\n\nname\tframes\nlonger\t12\t%s\nü\t\tend\n", strings.Repeat("word ", 20)+"end")
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	want := `a title

name    frames
longer  12  word word word word word word word word word word word word word
            word word word word word word word end
ü           end
`
	if out.String() != want {
		t.Errorf("got\n%s\nexpected\n%s", out.String(), want)
	}
	fmt.Fprint(w, "more\n")
	if err := w.Flush(); err != nil || out.String() != want+"more\n" {
		t.Errorf("after more: %v\n%s", err, out.String())
	}
}
