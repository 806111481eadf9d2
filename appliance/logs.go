package appliance

import (
	"os"
	"time"
)

// lookEvery is how often the logs of daemons are checked.
const lookEvery = 100 * time.Millisecond

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
