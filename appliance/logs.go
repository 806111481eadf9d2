package appliance

import (
	"os"
	"time"
)

const (
	lookEvery  = 100 * time.Millisecond // how often the logs of daemons are checked
	quiet      = 20 * time.Millisecond  // after which a daemon has written all that it has to say
	settleWait = lookEvery              // for that, at most
)

// logs are the files that daemons keep writing to, as they were when last checked.
type logs struct {
	*time.Ticker
	paths []string
	last  []os.FileInfo // nil: it was not there
}

// watchLogs begins to watch files, if there are any.
func watchLogs(paths []string) *logs {
	l := &logs{Ticker: time.NewTicker(lookEvery), paths: paths, last: make([]os.FileInfo, len(paths))}
	if len(paths) == 0 {
		l.Stop()
	}
	return l
}

// grown reports whether a file was replaced or has changed since the last check.
func (l *logs) grown() (changed bool) {
	for i, path := range l.paths {
		now, err := os.Stat(path)
		if err != nil {
			continue // it is being replaced
		}
		was := l.last[i]
		changed = changed || was == nil || was.Size() != now.Size() || !was.ModTime().Equal(now.ModTime()) || !os.SameFile(was, now)
		l.last[i] = now
	}
	return changed
}

// settle waits until nothing was written to the files for a moment, so that what a daemon writes
// together, such as the keys of both directions of a CHILD_SA, is read together. It does not wait long
// for one that goes on writing, nor at all for a file that has been quiet, or is of the future.
func (l *logs) settle() {
	for end := time.Now().Add(settleWait); time.Now().Before(end); {
		var latest time.Time
		for _, f := range l.last {
			if f != nil && f.ModTime().After(latest) {
				latest = f.ModTime()
			}
		}
		left := quiet - time.Since(latest)
		if left <= 0 || left > quiet {
			return
		}
		time.Sleep(min(left, time.Until(end)))
		l.grown()
	}
}
