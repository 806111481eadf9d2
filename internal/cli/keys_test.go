package cli

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"tapsec/internal/exit"
	"tapsec/internal/files"
	"tapsec/keys"
)

// command runs the command line on a standard input.
func command(stdin string, args ...string) (stdout, stderr string, err error) {
	var out, rest bytes.Buffer
	cmd := newRoot()
	cmd.SetArgs(args)
	cmd.SetIn(strings.NewReader(stdin))
	cmd.SetOut(&out)
	cmd.SetErr(&rest)
	err = cmd.Execute()
	return out.String(), rest.String(), err
}

// States of a kernel become a configuration, commands, a table, and the commands
// are the same whether or not they were a configuration in between.
func TestKeysRoundTrip(t *testing.T) {
	for _, file := range []string{"aead.txt", "composed.txt", "ah.txt", "modes.txt", "used-receiver.txt"} {
		file = "../../keys/testdata/" + file
		direct, _, err := command("", "keys", "--to", "xfrm", file)
		if err != nil {
			t.Fatal(err)
		}
		yaml, _, err := command("", "keys", file)
		if err != nil {
			t.Fatal(err)
		}
		round, said, err := command(yaml, "keys", "--to", "xfrm", "-")
		if err != nil || round != direct {
			t.Errorf("%s: %v, %s\n%s\nbecame by way of a configuration\n%s", file, err, said, direct, round)
		}
		if again, _, err := command(round, "keys", "--to", "xfrm", "-"); err != nil || again != direct {
			t.Errorf("%s: commands became %v\n%s", file, err, again)
		}
	}
}

// What a form cannot hold is said, a line for each kind, and no key with it.
func TestKeysSaysWhatIsLost(t *testing.T) {
	out, said, err := command("", "keys", "--to", "esp_sa", "../../configs/example.yaml")
	if err != nil || strings.Count(out, "\n") != 3 || strings.Contains(out, "#") {
		t.Errorf("%v\n%s", err, out)
	}
	const want = `esp_sa cannot hold mode: site-a, web, bundle-esp
esp_sa cannot hold direction: web
esp_sa cannot hold window: web
esp_sa cannot hold selector: web
esp_sa cannot hold lifetimes: web
left out: the table holds ESP only: bundle-ah
`
	if said != want {
		t.Errorf("said\n%s\nwant\n%s", said, want)
	}
	out, said, err = command("", "keys", "--to", "esp_sa", "../../keys/testdata/ah.txt")
	if err != nil || strings.Count(out, "\n") != 1 || !strings.Contains(said, "left out: the table holds ESP only: ah-c0030001, ah-c0030002, ah-c0030003 and 7 more\n") {
		t.Errorf("%v\n%s%s", err, out, said)
	}
	table, _, _ := command("", "keys", "--to", "esp_sa", "../../configs/example.yaml")
	for _, wrong := range [][]string{{"keys", "-"}, {"keys", "absent"}, {"keys", "--to", "setkey", "../../configs/example.yaml"}, {"keys"}} {
		if out, _, err := command("nothing", wrong...); exitCode(err) != exit.Input || out != "" {
			t.Errorf("%v: %q, %v", wrong, out, err)
		}
	}
	if out, said, err := command(table, "keys", "-"); err != nil || said != "" || strings.Count(out, "mode: auto") != 3 {
		t.Errorf("%v %s", err, said)
	}
}

// Keys go to a file that is their owner's alone, and over no other one.
func TestKeysFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sas.yaml")
	out, _, err := command("", "keys", "-o", path, "../../configs/example.yaml")
	if err != nil || out != "" {
		t.Fatal(out, err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	before, _ := os.ReadFile(path)
	_, _, err = command("", "keys", "--to", "xfrm", "-o", path, "../../configs/example.yaml")
	after, _ := os.ReadFile(path)
	if exitCode(err) != exit.Input || !bytes.Equal(before, after) || len(before) == 0 {
		t.Errorf("a file was overwritten, or not refused: %v", err)
	}
	for mode, warned := range map[os.FileMode]bool{0o600: false, 0o644: true} {
		file, err := os.OpenFile(filepath.Join(t.TempDir(), "redirected"), os.O_CREATE|os.O_WRONLY, mode)
		if err != nil {
			t.Fatal(err)
		}
		defer file.Close()
		var said bytes.Buffer
		err = convert(keysOptions{in: path, to: keys.YAML, streams: streams{stdout: &files.Stdout{Writer: file}, stderr: &said}})
		if err != nil || strings.Contains(said.String(), "others can read") != warned {
			t.Errorf("%o: %v, %s", mode, err, said.String())
		}
	}
}

// A dash is standard output wherever a file is named, and never a file of that name.
func TestDash(t *testing.T) {
	sample, err := filepath.Abs("../../configs/example.yaml")
	if err != nil {
		t.Fatal(err)
	}
	t.Chdir(t.TempDir())
	plain, _, err := command("", "keys", sample)
	if err != nil {
		t.Fatal(err)
	}
	if out, said, err := command("", "keys", "-o", "-", sample); err != nil || out != plain {
		t.Errorf("%v, %s\n%s", err, said, out)
	}
	if err := files.MakeOwn("-", func(io.Writer) error { return nil }); err == nil {
		t.Error("keys were saved")
	}
	if _, err := (files.Inputs{}).Create("--report", "-", 0o666); err == nil {
		t.Error("a page was begun")
	}
	if left, err := filepath.Glob("*"); len(left) > 0 || err != nil {
		t.Errorf("there is %v, %v", left, err)
	}
}
