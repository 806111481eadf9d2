package cli

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"tapsec/internal/exit"
	"tapsec/internal/files"
)

// No output is written over an input, by whatever way both lead to one file.
func TestOutputIsNoInput(t *testing.T) {
	for _, victim := range []string{"plain.yaml", "plain.pcap"} {
		for way, lead := range map[string]func(t *testing.T, path string) string{
			"the same path": func(_ *testing.T, path string) string { return path },
			"another path": func(_ *testing.T, path string) string {
				return filepath.Dir(path) + "/../" + filepath.Base(filepath.Dir(path)) + "/" + filepath.Base(path)
			},
			"a symbolic link": func(t *testing.T, path string) string { return linked(t, os.Symlink, path) },
			"a hard link":     func(t *testing.T, path string) string { return linked(t, os.Link, path) },
			"a descriptor": func(t *testing.T, path string) string {
				f, err := os.Open(path)
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { f.Close() })
				return fmt.Sprintf("/proc/self/fd/%d", f.Fd())
			},
		} {
			for _, flag := range []string{"-c", "-k"} {
				t.Run(victim+" "+flag+" "+way, func(t *testing.T) {
					config, in := inputCopies(t)
					out := lead(t, map[string]string{"plain.yaml": config, "plain.pcap": in}[victim])
					_, _, err := command("", "replay", flag, config, in, "-o", out)
					intact(t, err, config, in)
				})
			}
		}
	}
}

func linked(t *testing.T, link func(from, to string) error, path string) string {
	t.Helper()
	to := path + ".link"
	if err := link(path, to); err != nil {
		t.Fatal(err)
	}
	return to
}

func inputCopies(t *testing.T) (config, in string) {
	t.Helper()
	dir := t.TempDir()
	config, in = filepath.Join(dir, "plain.yaml"), filepath.Join(dir, "plain.pcap")
	for _, path := range []string{config, in} {
		if err := os.WriteFile(path, file(t, "testdata/"+filepath.Base(path)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return config, in
}

// intact checks that a command refused, with exit code 2 and a sentence, and that
// both inputs are as they were.
func intact(t *testing.T, err error, paths ...string) {
	t.Helper()
	if err == nil || exitCode(err) != exit.Input || !strings.Contains(err.Error(), "expected a file of its own") {
		t.Errorf("exit code %d: %v", exitCode(err), err)
	}
	for _, path := range paths {
		if !bytes.Equal(file(t, path), file(t, "testdata/"+filepath.Base(path))) {
			t.Errorf("%s was written to", path)
		}
	}
}

// Standard input and output are files, too.
func TestOutputIsNoStream(t *testing.T) {
	for name, args := range map[string]func(config, in string) []string{
		"keys from standard input": func(_, in string) []string { return []string{"-k", "-", in, "-o", "IN"} },
		"frames from it":           func(config, _ string) []string { return []string{"-c", config, "-", "-o", "IN"} },
		"nothing from it":          func(config, in string) []string { return []string{"-c", config, in, "-o", "IN"} },
		"keys to standard output":  func(config, in string) []string { return []string{"-k", config, in, "-o", "-"} },
	} {
		t.Run(name, func(t *testing.T) {
			config, in := inputCopies(t)
			stream := config
			if name == "frames from it" {
				stream = in
			}
			f, err := os.OpenFile(stream, os.O_RDWR, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			given := append([]string{"replay"}, args(config, in)...)
			for i, a := range given {
				given[i] = strings.Replace(a, "IN", fmt.Sprintf("/proc/self/fd/%d", f.Fd()), 1)
			}
			cmd := newRoot()
			cmd.SetArgs(given)
			cmd.SetIn(f)
			cmd.SetOut(&files.Stdout{Writer: f})
			cmd.SetErr(io.Discard)
			intact(t, cmd.Execute(), config, in)
		})
	}
}

// The state file, and the one by whose renaming it is written, are none either.
func TestStateIsNoInput(t *testing.T) {
	for name, state := range map[string]func(t *testing.T, path string) string{
		"itself": func(_ *testing.T, path string) string { return path },
		"a link": func(t *testing.T, path string) string { return linked(t, os.Symlink, path) },
		"a name that is renamed": func(t *testing.T, path string) string {
			if err := os.Link(path, path+".state.new"); err != nil {
				t.Fatal(err)
			}
			return path + ".state"
		},
		"a link beside it": func(t *testing.T, path string) string {
			state := filepath.Join(t.TempDir(), "state")
			if err := os.Symlink(path, state+".new"); err != nil {
				t.Fatal(err)
			}
			return state
		},
	} {
		config, _ := inputCopies(t)
		_, _, err := command("", "run", "-c", config, "--transport", "stack0", "--state", state(t, config))
		t.Log(name)
		intact(t, err, config)
	}
}

// What is no input is emptied and written, also through a link to nothing.
func TestOutputIsEmptied(t *testing.T) {
	config, in := inputCopies(t)
	out := filepath.Join(t.TempDir(), "out")
	long := bytes.Repeat([]byte("x"), 1<<20)
	if err := os.WriteFile(out, long, 0o600); err != nil {
		t.Fatal(err)
	}
	link := linked(t, os.Symlink, out+".absent")
	for _, path := range []string{out, link} {
		if _, _, err := command("", "replay", "-c", config, in, "-o", path); err != nil {
			t.Fatal(err)
		}
		if frames, rest := whole(file(t, path)); frames != 17 || rest != 0 {
			t.Errorf("%s: %d frames, and %d bytes more", path, frames, rest)
		}
	}
}
