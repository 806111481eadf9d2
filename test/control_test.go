package test

import (
	"bytes"
	"encoding/json"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"tapsec/control"
	"tapsec/internal/lab/rig"
)

// section is what docs/control.md says of one path.
type section struct {
	method, path string
	command      string // that asks
	fields       []string
}

func controlPage(t *testing.T) (all []section) {
	t.Helper()
	text, err := os.ReadFile("../docs/control.md")
	if err != nil {
		t.Fatal(err)
	}
	row := regexp.MustCompile(`(?m)^\| ([a-z_., ]+) \|`)
	for _, part := range strings.Split(string(text), "\n## ")[1:] {
		title, body, _ := strings.Cut(part, "\n")
		var s section
		if s.method, s.path, _ = strings.Cut(title, " "); s.method != "GET" && s.method != "POST" {
			continue
		}
		for line := range strings.Lines(body) {
			if command, ok := strings.CutPrefix(line, "    curl "); ok {
				s.command = "curl --fail-with-body " + strings.TrimSpace(command)
			}
		}
		for _, cells := range row.FindAllStringSubmatch(body, -1) {
			s.fields = append(s.fields, strings.Split(cells[1], ", ")...)
		}
		s.fields = slices.DeleteFunc(s.fields, func(f string) bool { return f == "field" })
		all = append(all, s)
	}
	return all
}

// fieldsOf gives the fields of an answer, those of counts by name left out.
func fieldsOf(v any, prefix string, into map[string]bool) {
	switch v := v.(type) {
	case []any:
		for _, one := range v {
			fieldsOf(one, prefix, into)
		}
	case map[string]any:
		for name, field := range v {
			object, ok := field.(map[string]any)
			list, many := field.([]any)
			if many = many && len(list) > 0; many {
				_, many = list[0].(map[string]any)
			}
			if counts := slices.Contains([]string{"status", "reasons", "verdicts", "dropped", "flags", "labels", "fields"}, name); ok && !counts {
				fieldsOf(object, prefix+name+".", into)
			} else if many {
				fieldsOf(list, prefix+name+".", into)
			} else {
				into[prefix+name] = true
			}
		}
	}
}

// paths are what a program says there is.
func paths(t *testing.T, client *control.Client) map[string]bool {
	t.Helper()
	var index control.Index
	if err := client.Get("", &index); err != nil {
		t.Fatal(err)
	}
	all := map[string]bool{"GET /": true}
	for _, name := range index.Documents {
		all["GET /"+name] = true
	}
	for _, name := range index.Actions {
		all["POST /"+name] = true
	}
	return all
}

// TestControlPage asks a running program all that docs/control.md says, with the
// page's own commands: what it does not say is not there, and each field has one
// name.
func TestControlPage(t *testing.T) {
	rig.Require(t)
	if _, err := exec.LookPath("curl"); err != nil {
		rig.Missing(t, "curl")
	}
	dir, err := os.MkdirTemp("", "control")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	socket := filepath.Join(dir, "socket")
	config := write(t, `local: [192.0.2.2]
sas:
  - {name: page, spi: 0x1001, src: 192.0.2.1, dst: 192.0.2.2, protocol: esp, mode: transport, suite: aes128gcm16, esn: true,
     encryption_key: 0x000102030405060708090a0b0c0d0e0fa1a2a3a4}
  - {name: open, spi: 0x1002, dst: 192.0.2.2, protocol: esp, mode: transport, suite: aes128gcm16, replay_off: true,
     encryption_key: 0x101112131415161718191a1b1c1d1e1fa1a2a3a4}
`)
	start(t, config, "--transport", "stack0", "--control", socket)
	client, err := control.Dial(socket)
	if err != nil {
		t.Fatal(err)
	}
	missing := paths(t, client)
	wire, stack := listen(t, "wire0"), listen(t, "stack0")
	wire.send(framed(plain("192.0.2.2:9", 1, 100))) // so that something is counted
	stack.next()
	stack.send(framed(plain(server, 2, 100)))
	wire.next()
	wire.keepSending(framed(plain("192.0.2.2:9", 1, 100))) // for those who wait for frames
	for _, s := range controlPage(t) {
		asked := s.method + " " + s.path
		if !missing[asked] {
			t.Errorf("the page has %s, which is not there", asked)
		}
		delete(missing, asked)
		cmd := exec.Command("sh", "-c", strings.Replace(s.command, "/run/tapsec.sock", socket, 1))
		text, err := cmd.CombinedOutput()
		if err != nil {
			t.Errorf("%s: %v\n%s", asked, err, text)
			continue
		}
		if s.method == "POST" {
			s.checkRequest(t, text)
			continue
		}
		s.checkAnswer(t, text)
	}
	if len(missing) > 0 {
		t.Errorf("the page lacks %v", slices.Sorted(maps.Keys(missing)))
	}
}

// checkAnswer compares the fields of a document with the page's.
func (s *section) checkAnswer(t *testing.T, text []byte) {
	t.Helper()
	if s.path == "/events/stream" {
		_, data, _ := strings.Cut(string(text), "\ndata: ")
		text = []byte(data)
	}
	if s.path == "/capture" {
		if !bytes.HasPrefix(text, []byte("\n\r\r\n")) {
			t.Errorf("the capture begins with %q", text[:min(len(text), 40)])
		}
		return
	}
	var answer any
	if err := json.Unmarshal(text, &answer); err != nil {
		t.Fatalf("%s: %v\n%s", s.path, err, text)
	}
	got := map[string]bool{}
	fieldsOf(answer, "", got)
	if s.path == "/outbound" || s.path == "/export" || s.path == "/trace" { // counts by name alone, a configuration, and docs/json.md's
		clear(got)
	}
	for _, field := range s.fields {
		if !got[field] && !slices.Contains([]string{"dropped", "next", "sas.partner"}, field) { // which may be missing
			t.Errorf("%s has no field %s:\n%s", s.path, field, text)
		}
		delete(got, field)
	}
	for field := range got {
		t.Errorf("the page does not know field %s of %s", field, s.path)
	}
}

// checkRequest compares the fields that the page's command sends with those that it
// lists.
func (s *section) checkRequest(t *testing.T, answer []byte) {
	t.Helper()
	_, body, _ := strings.Cut(s.command, "'")
	body, _, _ = strings.Cut(body, "'")
	var sent map[string]any
	if err := json.Unmarshal([]byte(body), &sent); err != nil || len(answer) > 0 != slices.Contains([]string{"/add", "/flush"}, s.path) {
		t.Errorf("%s: %v, answer %s", s.path, err, answer)
	}
	if got, want := slices.Sorted(maps.Keys(sent)), slices.Sorted(slices.Values(s.fields)); !slices.Equal(got, want) && !s.either(got, want) {
		t.Errorf("%s is sent %v, and the page has %v", s.path, got, want)
	}
}

// either reports whether a request that may have a name in the place of what
// identifies an SA is one, or leaves out what need not be said.
func (s *section) either(got, want []string) bool {
	more := map[string][]string{"/delete": {"name", "nic_only"}, "/update": {"name"}}[s.path]
	return slices.Equal(slices.Sorted(slices.Values(slices.Concat(got, more))), want)
}

// A control socket that somebody has removed, as cleaners of /run do, is not missed in silence, and its loss costs
// nothing else.
func TestControlSocketRemoved(t *testing.T) {
	rig.Require(t)
	socket := filepath.Join(sockets(t), "s")
	p := start(t, write(t, moreSAs), "--control", socket)
	if err := os.Remove(socket); err != nil {
		t.Fatal(err)
	}
	p.waitLog("the control socket is gone")
	if err := os.WriteFile(socket, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	p.stop()
	if _, err := os.Lstat(socket); err != nil {
		t.Errorf("somebody else's file is gone, too: %v", err)
	}
}
