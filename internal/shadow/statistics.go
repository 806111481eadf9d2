package shadow

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
)

// statistics are the kernel's for a whole namespace, /proc/net/xfrm_stat.
type statistics struct {
	file   *os.File // nil: the kernel has none
	before map[string]uint64
}

// openStatistics opens the statistics of the current thread's namespace.
func openStatistics() (*statistics, error) {
	f, err := os.Open("/proc/thread-self/net/xfrm_stat")
	if errors.Is(err, fs.ErrNotExist) {
		return &statistics{}, nil
	} else if err != nil {
		return nil, err
	}
	s := &statistics{file: f}
	s.before, err = s.read()
	return s, err
}

// read reads lines that have a name and a number.
func (s *statistics) read() (map[string]uint64, error) {
	if s.file == nil {
		return nil, nil
	}
	text := make([]byte, 1<<14)
	n, err := s.file.ReadAt(text, 0)
	if n == 0 {
		return nil, fmt.Errorf("read /proc/net/xfrm_stat: %w", err)
	}
	all := map[string]uint64{}
	for line := range strings.Lines(string(text[:n])) {
		var name string
		var value uint64
		if _, err := fmt.Sscan(line, &name, &value); err == nil {
			all[name] = value
		}
	}
	return all, nil
}

// since returns what has changed since the beginning.
func (s *statistics) since() (map[string]uint64, error) {
	now, err := s.read()
	changed := map[string]uint64{}
	for name, value := range now {
		if more := value - s.before[name]; more > 0 {
			changed[name] = more
		}
	}
	return changed, err
}

func (s *statistics) Close() error {
	if s.file == nil {
		return nil
	}
	return s.file.Close()
}
