package daemon

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// What a control group leaves too little of is said with its file, in each form that control groups have.
func TestEnoughThreads(t *testing.T) {
	for name, c := range map[string]struct {
		groups string
		files  map[string]string // of /sys/fs/cgroup
		says   string            // empty: there are enough
	}{
		"none":        {"", map[string]string{}, ""},
		"unlimited":   {"0::/\n", map[string]string{"pids.max": "max", "pids.current": "7"}, ""},
		"enough":      {"0::/a\n", map[string]string{"a/pids.max": "200", "a/pids.current": "7"}, ""},
		"too few":     {"0::/a\n", map[string]string{"a/pids.max": "20", "a/pids.current": "7"}, "has 2, and /sys/fs/cgroup/a/pids.max allows 13 more"},
		"around it":   {"0::/a/b\n", map[string]string{"a/b/pids.max": "max", "a/b/pids.current": "1", "a/pids.max": "9", "a/pids.current": "9"}, "/sys/fs/cgroup/a/pids.max allows 0 more"},
		"outside":     {"0::/../../b\n", map[string]string{"pids.max": "20", "pids.current": "7"}, "allows 13 more"},
		"overdrawn":   {"0::/\n", map[string]string{"pids.max": "3", "pids.current": "9"}, "allows 0 more"},
		"version 1":   {"9:cpu:/c\n8:pids:/a\n0::/\n", map[string]string{"pids/a/pids.max": "20", "pids/a/pids.current": "7"}, "/sys/fs/cgroup/pids/a/pids.max allows 13 more"},
		"a container": {"8:pids:/docker/1\n", map[string]string{"pids/pids.max": "20", "pids/pids.current": "7"}, "/sys/fs/cgroup/pids/pids.max allows 13 more"},
	} {
		root := t.TempDir()
		c.files["../../../proc/self/cgroup"] = c.groups
		c.files["../../../proc/self/task/1/comm"] = ""
		c.files["../../../proc/self/task/2/comm"] = ""
		for file, text := range c.files {
			path := filepath.Join(root, "sys/fs/cgroup", file)
			if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, []byte(text+"\n"), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		err := enoughThreads(root, 1)
		if (err != nil) != (c.says != "") || err != nil && !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
