package appliance

import (
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// What a daemon writes within a moment is waited for, and nothing else.
func TestLogsSettle(t *testing.T) {
	path := filepath.Join(t.TempDir(), "charon.log")
	for what, c := range map[string]struct {
		age     time.Duration   // of the last write, as it is looked at
		written []time.Duration // after that
		want    time.Duration
	}{
		"quiet":              {age: quiet},
		"of the future":      {age: -time.Hour},
		"just written":       {want: quiet},
		"the other half":     {age: 5 * time.Millisecond, written: []time.Duration{7 * time.Millisecond}, want: 7*time.Millisecond + quiet},
		"much is to be said": {written: ever(), want: settleWait},
	} {
		synctest.Test(t, func(t *testing.T) {
			write := func(at time.Time) {
				text, _ := os.ReadFile(path)
				if err := os.WriteFile(path, fmt.Append(text, "."), 0o600); err != nil {
					t.Error(err)
				}
				if err := os.Chtimes(path, at, at); err != nil {
					t.Error(err)
				}
			}
			begin := time.Now()
			write(begin.Add(-c.age))
			l := &logs{paths: []string{path}, last: make([]os.FileInfo, 1)}
			if !l.grown() {
				t.Errorf("%s: nothing has grown", what)
			}
			var daemon sync.WaitGroup
			defer daemon.Wait()
			daemon.Go(func() {
				for _, at := range c.written {
					time.Sleep(time.Until(begin.Add(at)))
					write(time.Now())
				}
			})
			l.settle()
			if took := time.Since(begin); took != c.want {
				t.Errorf("%s: waited %s, want %s", what, took, c.want)
			}
		})
	}
}

// ever is a write each 9 ms.
func ever() (all []time.Duration) {
	for at := time.Duration(0); at < 2*settleWait; at += 9 * time.Millisecond {
		all = append(all, at)
	}
	return all
}
