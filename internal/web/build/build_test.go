package main

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"html"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"tapsec/appliance"
	"tapsec/capture"
	"tapsec/configs"
	"tapsec/internal/explain"
	"tapsec/internal/inspect"
	"tapsec/internal/lab/rig"
)

// The page says in a browser what the program says here: of each frame, in the account, and
// of the first that failed; and it shows the report. It can connect to nothing.
func TestInBrowser(t *testing.T) {
	browser, err := exec.LookPath("chromium")
	if err != nil {
		rig.Missing(t, "chromium is missing: apt-get install chromium")
	}
	page := filepath.Join(t.TempDir(), "index.html")
	t.Chdir("../../..")
	if err := build("internal/web", page); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(text, []byte("connect-src 'none'")) || bytes.Contains(text, []byte("{{.")) {
		t.Error("the page may connect, or lacks a part")
	}
	file, keys := read(t, "configs/layers.pcapng"), read(t, "configs/layers.yaml")
	drive := `<script>
const poll = setInterval(() => {
	if ($("go").disabled || bytes) return;
	bytes = Uint8Array.from(atob("` + base64.StdEncoding.EncodeToString(file) + `"), c => c.charCodeAt(0));
	$("keys").value = ` + strconv.QuoteToASCII(string(keys)) + `;
	judge();
	const done = setInterval(() => {
		if ($("found").hidden && !$("error").textContent) return;
		clearInterval(done); clearInterval(poll);
		explain();
		let reached = "nothing";
		fetch("https://192.0.2.1/").then(() => reached = "something", () => {}).finally(() => {
			document.title = "told " + JSON.stringify({error: $("error").textContent, lines: $("lines").textContent, one: $("one").textContent,
				report: $("report").srcdoc.includes("Failures explained"), reached});
		});
	}, 50);
}, 50);
</script></body>`
	text = bytes.Replace(text, []byte("</body>"), []byte(drive), 1)
	if err := os.WriteFile(page, text, 0o644); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(browser, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--user-data-dir="+t.TempDir(),
		"--virtual-time-budget=36000000", "--dump-dom", "file://"+page).Output() // virtual time passes while the page is compiled; once it has told, the rest passes at once
	if err != nil {
		t.Fatal(err)
	}
	title := regexp.MustCompile(`(?s)<title>told (.*?)</title>`).FindSubmatch(out)
	if title == nil {
		t.Fatal("the page told nothing")
	}
	var told struct {
		Error, Lines, One, Reached string
		Report                     bool
	}
	if err := json.Unmarshal([]byte(html.UnescapeString(string(title[1]))), &told); err != nil {
		t.Fatal(err)
	}
	lines, one := here(t, file, keys)
	if told.Error != "" || told.Lines != lines || told.One != one || !told.Report || told.Reached != "nothing" {
		t.Errorf("the browser says %q\n%s\n%s\nreport %v, reached %s; want\n%s\n%s", told.Error, told.Lines, told.One, told.Report, told.Reached, lines, one)
	}
}

func read(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// here is what the program says without a browser.
func here(t *testing.T, file, keys []byte) (lines, one string) {
	t.Helper()
	c, err := configs.ParseKeys("keys", keys)
	if err != nil {
		t.Fatal(err)
	}
	nic, err := appliance.NewOffline(c)
	if err != nil {
		t.Fatal(err)
	}
	var out, told strings.Builder
	i, err := inspect.New(nic, c, &out, inspect.Options{})
	if err != nil {
		t.Fatal(err)
	}
	frames, err := capture.NewReader(bytes.NewReader(file))
	if err == nil {
		err = i.Capture(frames, nil, func() error { return nil })
	}
	if err == nil {
		err = i.Summary().Table(&out)
	}
	if err == nil {
		frames, err = capture.NewReader(bytes.NewReader(file))
	}
	if err != nil {
		t.Fatal(err)
	}
	nic, err = appliance.NewOffline(c)
	if err != nil {
		t.Fatal(err)
	}
	f, err := explain.Capture(nic, c, frames, 0)
	if err == nil {
		err = f.Text(&told, "the capture", false)
	}
	if err != nil {
		t.Fatal(err)
	}
	return out.String(), told.String()
}
