// Package soak_test runs the campaign against the whole program.
package soak_test

import (
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"tapsec/internal/lab/rig"
	"tapsec/test/program"
	"tapsec/test/soak"
)

func TestMain(m *testing.M) { program.Main(m) }

// short is how long the campaign lasts that every `go test` has part in; `make soak`
// has a longer one.
const short = 5 * time.Second

// What docs/reliability.md promises holds while all of it happens at once, in an
// order that nobody chose. The environment says for how long (SOAK=10m), from which
// seed (SEED=7), whether the first violation ends it (FAILFAST=1), and which actions are done
// alone (ONLY=kill,rekey).
func TestSoak(t *testing.T) {
	rig.Require(t)
	o := soak.Options{Command: program.Command, Seed: uint64(time.Now().UnixNano()) % 1e9, Time: short,
		Recover: 30 * time.Second, Dir: t.TempDir(), Log: os.Stderr, FailFast: os.Getenv("FAILFAST") != ""}
	var err error
	if text := os.Getenv("SOAK"); text != "" {
		if o.Time, err = time.ParseDuration(text); err != nil {
			t.Fatalf("SOAK: expected a time such as 10m, found %q", text)
		}
	}
	if text := os.Getenv("SEED"); text != "" {
		if o.Seed, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatalf("SEED: expected a number, found %q", text)
		}
	}
	if text := os.Getenv("ONLY"); text != "" {
		o.Only = strings.Split(text, ",")
	}
	report, err := soak.Run(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Log(report)
	if len(report.Violations) > 0 {
		t.Errorf("the promises do not hold; SEED=%d repeats the steps\n%s", o.Seed, strings.Join(report.Found, "\n"))
	}
}
