package inspect

import (
	"encoding/json"
	"testing"
	"time"

	"tapsec/sa"
	"tapsec/status"
)

// Counts of any size stay in their column.
func TestShort(t *testing.T) {
	for n, want := range map[uint64]string{0: "0", 999999: "999999", 1000000: "1000k", 123456789: "123M", 1<<64 - 1: "18446P"} {
		if got := short(n); got != want || len(got) > 6 {
			t.Errorf("%d: %s, want %s", n, got, want)
		}
	}
}

// Times are what the time package makes of them.
func TestJSONTime(t *testing.T) {
	for _, at := range []time.Time{
		time.Unix(0, 0), time.Unix(1700000000, 123456789), time.Unix(1, 5), time.Unix(-1, 0), time.Unix(1<<40, 7), time.Unix(-1<<36, 7),
	} {
		o := object{[]byte("{")}
		o.time("time", at)
		if want := `{"time":"` + at.UTC().Format("2006-01-02T15:04:05.000000000Z07:00") + `"`; string(o.b) != want {
			t.Errorf("%s, want %s", o.b, want)
		}
	}
}

// The words that are written without looking need no quoting.
func TestJSONWords(t *testing.T) {
	var words []string
	for _, r := range status.Reasons() {
		words = append(words, r.String(), r.Sentence())
	}
	for n := range 256 {
		words = append(words, status.Code(n).String(), status.Form(n).String(), status.State(n).String(), status.Portion(n).String(), sa.Protocol(n).String())
	}
	for _, word := range words {
		if b, err := json.Marshal(word); err != nil || string(b) != `"`+word+`"` {
			t.Errorf("%s: %v", b, err)
		}
	}
}
