package report_test

import (
	"bytes"
	"crypto/rand"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"tapsec/appliance"
	"tapsec/capture"
	"tapsec/configs"
	"tapsec/internal/account"
	"tapsec/internal/explain"
	"tapsec/internal/inspect"
	"tapsec/internal/lab/forge"
	"tapsec/internal/lab/rig"
	"tapsec/internal/outbound"
	"tapsec/internal/report"
	"tapsec/status"
)

const config = `
sas:
- {name: "site-a<b>", spi: 0x1001, protocol: esp, mode: tunnel, suite: aes128gcm16, src: 192.0.2.1, dst: 192.0.2.2, encryption_key: "000102030405060708090a0b0c0d0e0f10111213", window: 64}
- {name: site-b, spi: 0x1002, protocol: esp, mode: tunnel, suite: aes128gcm16, src: 192.0.2.3, dst: 192.0.2.2, encryption_key: "100102030405060708090a0b0c0d0e0f10111213"}
`

// traffic is a capture with some of everything: good, wrong, lost, late, doubled, in clear.
func traffic(t *testing.T, n int) (*configs.Config, []byte) {
	t.Helper()
	c, err := configs.Parse("test", []byte(config))
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	w, err := capture.NewWriter(&out)
	if err == nil {
		_, err = w.Interface("wire0", "")
	}
	packet := forge.UDP(nil, netip.MustParseAddrPort("10.0.0.1:4000"), netip.MustParseAddrPort("10.0.0.2:5000"), []byte("hello"))
	var frames [][]byte
	for _, s := range c.SAs {
		sealer, sealerErr := outbound.NewSealer(rand.Reader, s)
		if sealerErr != nil {
			t.Fatal(sealerErr)
		}
		for i := range n {
			sealed, sealErr := sealer.Seal(nil, packet)
			if sealErr != nil {
				t.Fatal(sealErr)
			}
			frame := forge.AppendFrame(nil, sealed)
			switch {
			case s.Name == "site-b":
			case i%97 == 0:
				frame[len(frame)-1] ^= 1
			case i%53 == 0:
				continue
			case i%41 == 0 && len(frames) > 80:
				frames = append(frames, frames[len(frames)-70])
			}
			frames = append(frames, frame)
		}
	}
	frames = append(frames, forge.AppendFrame(nil, packet))
	for i, f := range frames {
		if err == nil {
			err = w.Frame(0, time.Unix(1800000000, int64(i)*700_000), f, "")
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	return c, out.Bytes()
}

// page writes the report of a capture.
func page(t *testing.T, c *configs.Config, file []byte) (string, *inspect.Summary) {
	t.Helper()
	nic, err := appliance.NewOffline(c)
	if err != nil {
		t.Fatal(err)
	}
	r := report.New()
	i, err := inspect.New(nic, c, &bytes.Buffer{}, inspect.Options{Quiet: true, Watch: r.Watch})
	if err != nil {
		t.Fatal(err)
	}
	frames, err := capture.NewReader(bytes.NewReader(file))
	if err == nil {
		err = i.Capture(frames, nil, func() error { return nil })
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
	explained, err := explain.Frames(nic, c, frames, r.Explain())
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := r.Write(&out, "trace.pcap", i.Summary(), explained, ""); err != nil {
		t.Fatal(err)
	}
	return out.String(), i.Summary()
}

// The page loads nothing, has no key and no script, says what the account says, and its
// plots have every verdict. Its size does not grow with the capture.
func TestPage(t *testing.T) {
	c, file := traffic(t, 3000)
	text, sum := page(t, c, file)
	for _, bad := range []string{"http:", "https:", "<script", "@import", "url(", " src=", "000102030405", "site-a<b>"} {
		if at := strings.Index(text, bad); at >= 0 {
			t.Errorf("the page has %q: %s", bad, text[max(0, at-80):at+80])
		}
	}
	for _, want := range []string{sum.String(), "site-a&lt;b&gt;", "site-b", "nic/esp-icv: the ESP ICV is wrong", "ICV computed", "class=\"failed\"", "class=\"replayed\"", "class=\"left-alone\"", "polygon class=\"band\""} {
		if !strings.Contains(text, want) {
			t.Errorf("the page lacks %q", want)
		}
	}
	if bars := strings.Count(text, "<rect x="); bars < 60 || bars > 5*120 {
		t.Errorf("%d bars", bars)
	}
	_, more := traffic(t, 20000)
	if grown, _ := page(t, c, more); len(grown) > 2*len(text) {
		t.Errorf("the page of a capture seven times as large has %d bytes instead of %d", len(grown), len(text))
	}
}

// judged is a frame with one record.
func judged(at time.Time, frame int, verdict account.Verdict, rec status.Record, word status.Word) *inspect.Seen {
	t := &status.Trailer{Word: word, Reason: rec.Reason}
	t.Add(rec)
	return &inspect.Seen{Number: frame, Time: at, Verdict: verdict, Trailer: t, Name: func(uint32) string { return "site-a" }}
}

// written is the page of some frames.
func written(t *testing.T, all ...*inspect.Seen) string {
	t.Helper()
	r := report.New()
	for _, s := range all {
		r.Watch(s)
	}
	var out bytes.Buffer
	if err := r.Write(&out, "trace.pcap", &inspect.Summary{}, nil, ""); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

// The page says of a frame what the lines say, whatever its time.
func TestFrames(t *testing.T) {
	good := status.Record{Handle: 1, State: status.ICVValid, Reason: status.Verified, Number: 7}
	short := status.Record{Handle: 1, State: status.FailedBefore, Reason: status.IPLength, Number: 8}
	at := time.Unix(1800000000, 0)
	text := written(t, judged(at, 1, account.Good, good, 2), judged(at.Add(time.Second), 2, account.NotJudged, short, 0x60002))
	if !strings.Contains(text, "frame 2, number 8: not judged") || strings.Contains(text, "FAILED</title>") {
		t.Errorf("a frame that was not judged is told as\n%s", text)
	}
	inner := status.Record{Handle: 2, State: status.FailedBefore, Reason: status.AHICV, Number: 9}
	frame := judged(at, 1, account.Failed, good, 0x20006)
	frame.Trailer.Add(inner)
	if text := written(t, frame); !strings.Contains(text, "frame 1, number 7: good") || !strings.Contains(text, "frame 1, number 9: FAILED") {
		t.Errorf("a good tunnel whose inside fails is told as\n%s", text)
	}
	if text := written(t, judged(time.Time{}, 1, account.Good, good, 2)); !strings.Contains(text, "Numbers 7 to 7, the capture has no times") {
		t.Errorf("frames without times are told as\n%s", text)
	}
	var back []*inspect.Seen
	for i := range 300 { // later ones first, over an hour
		back = append(back, judged(at.Add(-time.Duration(i)*12*time.Second), i+1, account.Good, good, 2))
	}
	back = append(back, judged(at.AddDate(5000, 0, 0), 301, account.Good, good, 2), judged(at.AddDate(-2000, 0, 0), 302, account.Good, good, 2))
	text = written(t, back...)
	if bars := strings.Count(text, "<rect x="); bars < 40 || bars > 120 {
		t.Errorf("%d bars of an hour that goes back", bars)
	}
	if n := strings.Count(text, ": 1 good</title>"); n > 2 {
		t.Errorf("%d bars of one frame", n)
	}
}

// Headers that no SA matches have rows for the first of them, and a number for the rest.
func TestStrays(t *testing.T) {
	sum := &inspect.Summary{Others: account.Others{Headers: 1000}}
	for i := range 300 {
		sum.SAs = append(sum.SAs, account.Row{SPI: fmt.Sprint("spi ", i)})
	}
	var out bytes.Buffer
	if err := report.New().Write(&out, "trace.pcap", sum, nil, ""); err != nil {
		t.Fatal(err)
	}
	if text := out.String(); strings.Count(text, "(no SA)") != 100 || !strings.Contains(text, "And 1200 more headers that no SA matches.") {
		t.Errorf("of 1300 headers %d have rows:\n%s", strings.Count(text, "(no SA)"), text)
	}
}

// A browser shows it: what is there has a size, in a window and on a telephone, and nothing
// is wider than it.
func TestBrowser(t *testing.T) {
	browser, err := exec.LookPath("chromium")
	if err != nil {
		rig.Missing(t, "chromium is missing: apt-get install chromium")
	}
	c, file := traffic(t, 3000)
	text, _ := page(t, c, file)
	// What measures stands in the copy that is tested alone, and may run there.
	const measure = `<script>addEventListener("load", () => { document.title = JSON.stringify({
		wide: document.documentElement.scrollWidth > document.documentElement.clientWidth, failures: document.querySelectorAll("details.failure").length,
		bars: document.getElementById("time").getBoundingClientRect().height > 20, rows: document.querySelectorAll("#sas tr.sa").length,
		ink: getComputedStyle(document.body).color != getComputedStyle(document.body).backgroundColor}) })</script>`
	text = strings.Replace(text, "style-src 'unsafe-inline'", "style-src 'unsafe-inline'; script-src 'unsafe-inline'", 1)
	text = strings.Replace(text, "</body>", measure+"</body>", 1)
	path := filepath.Join(t.TempDir(), "report.html")
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, size := range []string{"1280,900", "500,900"} {
		out, err := exec.Command(browser, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--user-data-dir="+t.TempDir(), "--window-size="+size, "--dump-dom", "file://"+path).Output()
		if err != nil {
			t.Fatal(err)
		}
		title := regexp.MustCompile(`<title>(\{.*?\})</title>`).FindStringSubmatch(string(out))
		if title == nil {
			t.Fatalf("%s: the page measured nothing: %.400s", size, out)
		}
		if want := `{"wide":false,"failures":1,"bars":true,"rows":2,"ink":true}`; title[1] != want {
			t.Errorf("%s: %s, want %s", size, title[1], want)
		}
	}
}
