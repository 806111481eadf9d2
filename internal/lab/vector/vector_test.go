package vector

import (
	"reflect"
	"testing"
)

func TestParse(t *testing.T) {
	text := "# a: comment\n\n\nname: one\nsa: {x: 1}\nsa: {y: 2}\n\n# between: them\nname:two\nempty:\nno field\n"
	want := []Block{
		{"name": {"one"}, "sa": {"{x: 1}", "{y: 2}"}},
		{"name": {"two"}, "empty": {""}},
	}
	got := Parse(text)
	if !reflect.DeepEqual(got, want) {
		t.Fatalf("%q, want %q", got, want)
	}
	if s := got[0].Get("sa"); s != "{x: 1}\n{y: 2}" {
		t.Errorf("two values: %q", s)
	}
	if s := got[1].Get("sa"); s != "" {
		t.Errorf("no value: %q", s)
	}
}
