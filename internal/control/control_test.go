package control

import (
	"bufio"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"tapsec/control"
	"tapsec/internal/lab/rig"
	"tapsec/sa"
)

// nic has one SA and remembers what it was told.
type nic struct {
	SAs
	mu    sync.Mutex
	holds sa.ID
	told  []string
}

func (n *nic) Update(which control.Ref, high uint32) error {
	return n.tell(which.ID, fmt.Sprint("update ", high))
}

func (n *nic) Delete(which control.Ref, nicOnly bool) error {
	if nicOnly {
		return n.tell(which.ID, "delete from the NIC")
	}
	return n.tell(which.ID, "delete")
}

func (n *nic) tell(id sa.ID, what string) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if id.SPI == 0xdead {
		return errors.New("out of order")
	}
	if id != n.holds {
		return fmt.Errorf("nic: %w", sa.ErrUnknown)
	}
	n.told = append(n.told, what)
	return nil
}

var held = sa.ID{Protocol: sa.ESP, SPI: 0x1001, Dst: netip.MustParseAddr("192.0.2.1")}

// socket is a path that is short enough, in a directory of its own.
func socket(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "control")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return filepath.Join(dir, "socket")
}

func open(t *testing.T, path string, c Config) *Server {
	t.Helper()
	s, err := Open(path, c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func dial(t *testing.T, path string) *control.Client {
	t.Helper()
	c, err := control.Dial(path)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// dead leaves a socket on which nobody listens, as a killed program does.
func dead(t *testing.T, path string) {
	t.Helper()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	l.Close()
}

// wantSentence checks that an error is one line that says all of these.
func wantSentence(t *testing.T, err error, parts ...string) {
	t.Helper()
	if err == nil {
		t.Errorf("no error, expected %q", parts)
		return
	}
	for _, part := range parts {
		if !strings.Contains(err.Error(), part) || strings.Contains(err.Error(), "\n") {
			t.Errorf("said %q, expected %q", err, part)
		}
	}
}

type counters struct {
	Frames uint64            `json:"frames"`
	By     map[string]uint64 `json:"by"`
}

func TestDocuments(t *testing.T) {
	path, calls := socket(t), atomic.Uint64{}
	open(t, path, Config{Documents: map[string]func() any{
		"counters": func() any { return counters{calls.Add(1), map[string]uint64{"replay": 1 << 63}} },
		"windows":  func() any { return []string{} },
	}})
	c := dial(t, path)
	for want := uint64(1); want < 3; want++ { // a document is made anew each time
		var got counters
		if err := c.Get("counters", &got); err != nil || got.Frames != want || got.By["replay"] != 1<<63 {
			t.Errorf("%+v, %v", got, err)
		}
	}
	var i control.Index
	if err := c.Get("", &i); err != nil || !reflect.DeepEqual(i, control.Index{Documents: []string{"counters", "windows"}, Actions: []string{}}) {
		t.Errorf("%+v, %v", i, err)
	}
	wantSentence(t, c.Get("sas", &i), path, `there is no "/sas" here`)
	wantSentence(t, c.Get("counters", new(int)), path, "/counters", "same version?")
}

// A list that is made while it is sent reads like any other one, whoever reads slowly.
func TestLongDocuments(t *testing.T) {
	for _, n := range []int{0, 1, 3, 20_000} {
		path, all := socket(t), []any{}
		for i := range n {
			all = append(all, counters{uint64(i), map[string]uint64{"<late>": 1}})
		}
		open(t, path, Config{Documents: map[string]func() any{
			"whole": func() any { return all },
			"long":  func() any { return slices.Values(all) },
		}})
		_, want := raw(t, path, "GET", "/whole", "")
		if status, got := raw(t, path, "GET", "/long", ""); status != 200 || got != want {
			t.Errorf("%d items: %d, %.200s, expected %.200s", n, status, got, want)
		}
	}
}

// A reader who leaves ends what is made for it.
func TestLongDocumentUnread(t *testing.T) {
	path, ended := socket(t), make(chan struct{})
	open(t, path, Config{Documents: map[string]func() any{"long": func() any {
		return iter.Seq[any](func(yield func(any) bool) {
			for yield(strings.Repeat("x", 1000)) {
			}
			close(ended)
		})
	}}})
	c, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprint(c, "GET /long HTTP/1.1\r\nHost: tapsec\r\n\r\n")
	if _, err := io.ReadFull(c, make([]byte, 100_000)); err != nil {
		t.Fatal(err)
	}
	c.Close()
	<-ended
}

// Contract, Lifecycle, and The transport, step 4: the transport tells the NIC.
func TestUpdateAndDelete(t *testing.T) {
	path, n := socket(t), &nic{holds: held}
	open(t, path, Config{SAs: n})
	c := dial(t, path)
	for _, err := range []error{c.Update(control.Ref{ID: held}, 0), c.Update(control.Ref{ID: held}, 0xffffffff), c.Delete(control.Ref{ID: held}, false), c.Delete(control.Ref{ID: held}, true)} {
		if err != nil {
			t.Error(err)
		}
	}
	if want := []string{"update 0", "update 4294967295", "delete", "delete from the NIC"}; !reflect.DeepEqual(n.told, want) {
		t.Errorf("told %q, expected %q", n.told, want)
	}
	for _, change := range []func(*sa.ID){
		func(id *sa.ID) { id.Protocol = sa.AH },
		func(id *sa.ID) { id.SPI++ },
		func(id *sa.ID) { id.Dst = netip.Addr{} },
		func(id *sa.ID) { id.Src = netip.MustParseAddr("192.0.2.2") },
	} {
		other := held
		change(&other)
		for _, err := range []error{c.Update(control.Ref{ID: other}, 1), c.Delete(control.Ref{ID: other}, false)} {
			if !errors.Is(err, sa.ErrUnknown) {
				t.Errorf("%s: %v", other, err)
			}
			wantSentence(t, err, path, other.String(), "no such SA")
		}
	}
	other := sa.ID{Protocol: sa.ESP, SPI: 0xdead}
	err := c.Delete(control.Ref{ID: other}, false)
	if wantSentence(t, err, "out of order"); errors.Is(err, sa.ErrUnknown) {
		t.Error(err)
	}
}

// raw posts a body as any program could.
func raw(t *testing.T, path, method, url, body string) (int, string) {
	t.Helper()
	h := http.Client{Timeout: time.Minute, Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(context.Context, string, string) (net.Conn, error) {
		return net.Dial("unix", path)
	}}}
	r, err := http.NewRequest(method, "http://x"+url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	a, err := h.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Body.Close()
	text, err := io.ReadAll(a.Body)
	if err != nil {
		t.Fatal(err)
	}
	return a.StatusCode, string(text)
}

func TestHostileRequests(t *testing.T) {
	path, n := socket(t), &nic{holds: held}
	open(t, path, Config{Documents: map[string]func() any{"moved": func() any { return 1 }}, SAs: n})
	good := `"protocol": "esp", "spi": "0x1001", "dst": "192.0.2.1", "src": ""`
	for name, c := range map[string]struct {
		method, url, body string
		status            int
		says              string
	}{
		"good":             {"POST", "/update", `{` + good + `, "high": 1}`, 204, ""},
		"no body":          {"POST", "/update", ``, 400, "the body is empty"},
		"no JSON":          {"POST", "/update", "\x00\xff", 400, "invalid character"},
		"cut off":          {"POST", "/update", `{` + good, 400, "unexpected EOF"},
		"a list":           {"POST", "/update", `[]`, 400, "/update: expected an object, found array"},
		"null":             {"POST", "/update", `null`, 400, `\"protocol\" is missing`},
		"unknown field":    {"POST", "/update", `{` + good + `, "high": 1, "key": "00"}`, 400, `unknown field \"key\"`},
		"more behind":      {"POST", "/update", `{` + good + `, "high": 1}{}`, 400, "more after the object"},
		"too long":         {"POST", "/update", `{` + good + `, "high": 1` + strings.Repeat(" ", maxBody) + `}`, 400, "too large"},
		"much too long":    {"POST", "/update", strings.Repeat("[", 1<<22), 400, "too large"},
		"long, then good":  {"POST", "/update", strings.Repeat(" ", maxBody) + `{` + good + `, "high": 1}`, 400, "too large"},
		"no high":          {"POST", "/update", `{` + good + `}`, 400, `\"high\" is missing`},
		"high too high":    {"POST", "/update", `{` + good + `, "high": 4294967296}`, 400, "4294967296"},
		"high as text":     {"POST", "/update", `{` + good + `, "high": "1"}`, 400, "/update: high: expected a number from 0 to 4294967295, found string"},
		"high negative":    {"POST", "/update", `{` + good + `, "high": -1}`, 400, "-1"},
		"protocol":         {"POST", "/delete", `{"protocol": "tcp", "spi": "1"}`, 400, `found \"tcp\"`},
		"no protocol":      {"POST", "/delete", `{"spi": "1"}`, 400, `/delete: \"protocol\" is missing`},
		"no SPI":           {"POST", "/delete", `{"protocol": "ah"}`, 400, `\"spi\" is missing`},
		"no dst":           {"POST", "/delete", `{"protocol": "esp", "spi": "0xb001"}`, 400, `\"dst\" is missing`},
		"no src":           {"POST", "/delete", `{"protocol": "esp", "spi": "0xb001", "dst": "192.0.2.1"}`, 400, `\"src\" is missing`},
		"dst null":         {"POST", "/delete", `{"protocol": "esp", "spi": "0xb001", "dst": null}`, 400, `\"dst\" is missing`},
		"SPI as a number":  {"POST", "/delete", `{"protocol": "ah", "spi": 4097}`, 400, "number"},
		"SPI too high":     {"POST", "/delete", `{"protocol": "ah", "spi": "0x100000000"}`, 400, "SPI of 32 bits"},
		"address":          {"POST", "/delete", `{` + good + `, "src": "example.org"}`, 400, "example.org"},
		"high in a delete": {"POST", "/delete", `{` + good + `, "high": 1}`, 400, `unknown field \"high\"`},
		"unknown SA":       {"POST", "/delete", `{"protocol": "ah", "spi": "1", "dst": "", "src": ""}`, 404, "ah SPI 0x00000001: no such SA"},
		"add null":         {"POST", "/add", `null`, 400, "/add: expected fields"},
		"GET an action":    {"GET", "/update", ``, 405, "/update takes POST, not GET"},
		"POST a document":  {"POST", "/moved", ``, 405, "/moved takes GET, not POST"},
		"DELETE":           {"DELETE", "/", ``, 405, "takes GET"},
		"nothing":          {"GET", "/nothing", ``, 404, "there is no"},
		"a path":           {"GET", "/../../etc/passwd", ``, 404, "there is no"},
		"below a document": {"GET", "/moved/", ``, 404, "there is no"},
		"a page of one":    {"GET", "/moved?limit=1", ``, 400, `/moved: expected nothing in the query, found \"limit\"`},
		"flush one SA":     {"POST", "/flush?name=site", `{}`, 400, `found \"name\"`},
	} {
		status, text := raw(t, path, c.method, c.url, c.body)
		var said struct{ Error string }
		if status != c.status || !strings.Contains(text, c.says) || status >= 400 && (json.Unmarshal([]byte(text), &said) != nil || said.Error == "") {
			t.Errorf("%s: %d %s, expected %d %s", name, status, text, c.status, c.says)
		}
	}
	if len(n.told) != 1 {
		t.Errorf("the NIC was told %q", n.told)
	}
	dial(t, path)
}

// What is no HTTP, and what never ends, keeps nobody else from being answered.
func TestHostileConnections(t *testing.T) {
	path := socket(t)
	s := open(t, path, Config{})
	for _, sent := range []string{"", "\x16\x03\x01\x00\x00", "GET / HTTP/1.1\r\nHost: x\r\n", "POST /update HTTP/1.1\r\nHost: x\r\nContent-Length: 99\r\n\r\n{",
		"GET / HTTP/1.1\r\nHost: x\r\nX: " + strings.Repeat("x", 1<<16)} {
		conn, err := net.Dial("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		go io.WriteString(conn, sent)
	}
	dial(t, path)
	began := time.Now()
	if err := s.Close(); err != nil || time.Since(began) > serverPause-closingPause { // connections end by themselves after serverPause
		t.Errorf("%v after %v", err, time.Since(began))
	}
}

// Clients that say nothing, say it slowly, or come again and again on one
// connection use up few descriptors, and others are answered after them.
func TestManyClients(t *testing.T) {
	path := socket(t)
	open(t, path, Config{})
	before, peak := descriptors(t), 0
	var silent []net.Conn
	for i := range 10 * maxClients {
		conn, err := net.Dial("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		silent = append(silent, conn)
		if i%2 == 0 {
			io.WriteString(conn, "GET / HTTP/1.1\r\nHost: x\r\n")
		}
		peak = max(peak, descriptors(t)-len(silent)-before)
	}
	if peak > maxClients {
		t.Errorf("%d descriptors for %d clients, expected %d at most", peak, len(silent), maxClients)
	}
	for _, conn := range silent[maxClients:] { // of which the server need not wait for the end
		conn.Close()
	}
	patient := http.Client{Timeout: time.Minute, Transport: &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) {
		return net.Dial("unix", path)
	}}}
	a, err := patient.Get("http://x/")
	if err != nil {
		t.Fatal(err)
	}
	a.Body.Close()
	if a.StatusCode != 200 || !a.Close {
		t.Errorf("%s, the connection ends: %t", a.Status, a.Close)
	}
}

// descriptors are those that this process has open.
func descriptors(t *testing.T) int {
	t.Helper()
	all, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(all)
}

// A document may hold SAs as they are: their keys never come out.
func TestNoKeyInDocuments(t *testing.T) {
	path, secret := socket(t), []byte("a secret of 20 bytes")
	s := &sa.SA{Name: "web", EncryptionKey: sa.NewKey(secret), IntegrityKey: sa.NewKey(secret)}
	open(t, path, Config{Documents: map[string]func() any{"sas": func() any { return []any{s, *s} }}})
	_, text := raw(t, path, "GET", "/sas", "")
	if !strings.Contains(text, "web") || strings.Contains(text, string(secret[:5])) || strings.Contains(text, hex.EncodeToString(secret[:5])) {
		t.Error(text)
	}
}

// The socket belongs to its owner alone, whatever the umask, and goes with the
// server.
func TestSocketFile(t *testing.T) {
	path := socket(t)
	old := syscall.Umask(0)
	s, err := Open(path, Config{})
	after := syscall.Umask(old)
	if err != nil || after != 0 {
		t.Fatalf("%v, umask left at %o", err, after)
	}
	info, err := os.Lstat(path)
	if err != nil || info.Mode() != fs.ModeSocket|0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("left behind: %v", err)
	}
}

func TestSecondServer(t *testing.T) {
	path := socket(t)
	first := open(t, path, Config{Documents: map[string]func() any{"first": func() any { return 1 }}})
	_, err := Open(path, Config{})
	wantSentence(t, err, path, "another program listens there")
	c := dial(t, path)
	if err := c.Get("first", new(int)); err != nil { // and it still does
		t.Error(err)
	}
	// A client outlives the server that it began with.
	first.Close()
	second := open(t, path, Config{Documents: map[string]func() any{"second": func() any { return 2 }}})
	if err := c.Get("second", new(int)); err != nil {
		t.Error(err)
	}
	// What took its place, a server leaves alone.
	os.Remove(path)
	open(t, path, Config{})
	second.Close()
	dial(t, path)
}

func TestDeadSocket(t *testing.T) {
	path := socket(t)
	dead(t, path)
	_, err := control.Dial(path)
	wantSentence(t, err, path, "nobody listens any more", "restart the program")
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	_, err = control.Dial(file)
	wantSentence(t, err, file, "is no socket", "--control")
	open(t, path, Config{})
	dial(t, path)
}

// What is no socket is not ours to remove.
func TestOtherFile(t *testing.T) {
	path := socket(t)
	if err := os.WriteFile(path, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	link := path + "l"
	if err := os.Symlink(path, link); err != nil {
		t.Fatal(err)
	}
	for _, p := range []string{path, link, filepath.Dir(path)} {
		_, err := Open(p, Config{})
		wantSentence(t, err, p, "no socket", "choose another path")
	}
	if text, err := os.ReadFile(path); string(text) != "precious" {
		t.Errorf("%s, %v", text, err)
	}
}

func TestOpenRefuses(t *testing.T) {
	for path, says := range map[string]string{
		"":                             "expected the path of a file",
		"@abstract":                    "expected the path of a file",
		"/" + strings.Repeat("x", 107): "108 bytes, and a socket's at most 107",
		filepath.Join(socket(t), "s"):  "no such file or directory",
	} {
		_, err := Open(path, Config{})
		wantSentence(t, err, says)
	}
	for _, name := range []string{"", "a/b", "SAS"} {
		func() {
			defer func() {
				if said := fmt.Sprint(recover()); !strings.HasPrefix(said, "control: ") {
					t.Errorf("%q: %s", name, said)
				}
			}()
			Open(socket(t), Config{Documents: map[string]func() any{name: func() any { return nil }}})
		}()
	}
}

func TestDialRefuses(t *testing.T) {
	path := socket(t)
	_, err := control.Dial(path)
	if wantSentence(t, err, path, "does not exist", "is tapsec running"); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
	// Something else that answers there.
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			bufio.NewReader(conn).ReadString('\n')
			io.WriteString(conn, "hello\r\n")
			conn.Close()
		}
	}()
	_, err = control.Dial(path)
	wantSentence(t, err, path)
}

// A program that is stopped, or listens and never accepts, is given up on.
func TestDialTimesOut(t *testing.T) {
	path := socket(t)
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	began := time.Now()
	_, err = control.Dial(path)
	if wantSentence(t, err, path, "no answer in time"); !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(began) > 10*time.Second {
		t.Errorf("%v after %v", err, time.Since(began))
	}
}

const strangerVar = "CONTROL_TEST_SOCKET"

// Another user is kept out by the mode of the socket. The test runs itself as
// nobody, from a copy that nobody can read.
func TestStrangerIsKeptOut(t *testing.T) {
	if path := os.Getenv(strangerVar); path != "" {
		_, err := control.Dial(path)
		if wantSentence(t, err, path, "is for the user who started tapsec"); !errors.Is(err, fs.ErrPermission) {
			t.Error(err)
		}
		return
	}
	if os.Getuid() != 0 {
		t.Skip("only root can run a program as another user")
	}
	path := socket(t)
	open(t, path, Config{})
	binary, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	copied := filepath.Join(filepath.Dir(path), "test")
	if err := errors.Join(os.WriteFile(copied, binary, 0o755), os.Chmod(filepath.Dir(path), 0o755)); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(copied, "-test.run=^TestStrangerIsKeptOut$", "-test.v")
	cmd.Dir, cmd.Env = filepath.Dir(path), append(os.Environ(), strangerVar+"="+path)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "--- PASS") {
		t.Errorf("%v\n%s", err, out)
	}
}

// The package comment's example.
func TestCurl(t *testing.T) {
	curl, err := exec.LookPath("curl")
	if err != nil {
		rig.Missing(t, "curl")
	}
	path, n := socket(t), &nic{holds: held}
	open(t, path, Config{Documents: map[string]func() any{"moved": func() any { return counters{Frames: 7} }}, SAs: n})
	for _, c := range []struct{ data, url, want string }{
		{"", "/moved", "{\n  \"frames\": 7,\n  \"by\": null\n}\n"},
		{`{"protocol": "esp", "spi": "4097", "dst": "192.0.2.1", "src": "", "high": 1}`, "/update", ""},
		{`{"protocol": "esp", "spi": "0x1001", "dst": "192.0.2.1", "src": ""}`, "/delete", ""},
	} {
		args := []string{"-sS", "--fail-with-body", "--unix-socket", path, "http://tapsec" + c.url}
		if c.data != "" {
			args = append(args, "-d", c.data)
		}
		if out, err := exec.Command(curl, args...).CombinedOutput(); err != nil || string(out) != c.want {
			t.Errorf("%s: %s, %v", c.url, out, err)
		}
	}
	if want := []string{"update 1", "delete"}; !reflect.DeepEqual(n.told, want) {
		t.Errorf("told %q", n.told)
	}
}

// Many at once; run with -race.
func TestConcurrentClients(t *testing.T) {
	path, n := socket(t), &nic{holds: held}
	open(t, path, Config{SAs: n})
	c := dial(t, path)
	var all sync.WaitGroup
	for high := range uint32(8) {
		all.Go(func() {
			for range 20 {
				if err := c.Update(control.Ref{ID: held}, high); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	if len(n.told) != 160 {
		t.Errorf("%d updates", len(n.told))
	}
}
