package test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers"
	"github.com/getkin/kin-openapi/routers/legacy"

	"tapsec/configs"
	"tapsec/control"
	"tapsec/internal/lab/rig"
)

// api is a control socket and what control/openapi.yaml says of it.
type api struct {
	t       *testing.T
	doc     *openapi3.T
	router  routers.Router
	client  http.Client
	missing map[string]bool // answers that were described and not seen
}

func newAPI(t *testing.T, socket string) *api {
	t.Helper()
	a := &api{t: t, missing: map[string]bool{}}
	a.client.Transport = &http.Transport{DisableKeepAlives: true, DialContext: func(context.Context, string, string) (net.Conn, error) {
		return net.Dial("unix", socket)
	}}
	for _, media := range []string{"text/event-stream", "application/x-pcapng", "application/x-ndjson"} {
		openapi3filter.RegisterBodyDecoder(media, openapi3filter.PlainBodyDecoder)
	}
	var err error
	if a.doc, err = openapi3.NewLoader().LoadFromData(control.OpenAPI); err != nil {
		t.Fatal(err)
	}
	if err := a.doc.Validate(context.Background()); err != nil {
		t.Fatal(err)
	}
	if a.router, err = legacy.NewRouter(a.doc); err != nil {
		t.Fatal(err)
	}
	for path, item := range a.doc.Paths.Map() {
		for method, operation := range item.Operations() {
			for status := range operation.Responses.Map() {
				a.missing[method+" "+path+" "+status] = true
			}
		}
	}
	return a
}

// ask sends a request, which is described unless it is a wrong one, and holds the
// answer against its description.
func (a *api) ask(method, path, body string, status int) string {
	a.t.Helper()
	request, err := http.NewRequest(method, "http://tapsec"+path, strings.NewReader(body))
	if err != nil {
		a.t.Fatal(err)
	}
	if body != "" {
		request.Header.Set("Content-Type", "application/json")
	}
	route, in, err := a.router.FindRoute(request)
	if err != nil {
		a.t.Errorf("%s %s: %v", method, path, err)
		return ""
	}
	check := &openapi3filter.RequestValidationInput{Request: request, PathParams: in, Route: route,
		Options: &openapi3filter.Options{SkipSettingDefaults: true}}
	err = openapi3filter.ValidateRequest(context.Background(), check)
	for name := range request.URL.Query() {
		if route.Operation.Parameters.GetByInAndName("query", name) == nil {
			err = fmt.Errorf("the query has no %s", name) // to which OpenAPI has no opinion
		}
	}
	if (err == nil) != (status != http.StatusBadRequest) {
		a.t.Errorf("%s %s %s: a request for %d, of which its description says: %v", method, path, body, status, err)
	}
	request.Body = io.NopCloser(strings.NewReader(body))
	answer, err := a.client.Do(request)
	if err != nil {
		a.t.Fatal(err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil || answer.StatusCode != status {
		a.t.Errorf("%s %s %s: %s %s, expected %d", method, path, body, answer.Status, text, status)
	}
	if path != "/openapi.yaml" { // which is no JSON
		got := &openapi3filter.ResponseValidationInput{RequestValidationInput: check, Status: answer.StatusCode, Header: answer.Header,
			Body: io.NopCloser(bytes.NewReader(text)), Options: &openapi3filter.Options{IncludeResponseStatus: true}}
		if err := openapi3filter.ValidateResponse(context.Background(), got); err != nil {
			a.t.Errorf("%s %s: the answer is not as described: %v\n%s", method, path, err, text)
		}
	}
	delete(a.missing, method+" "+route.Path+" "+strings.Fields(answer.Status)[0])
	return string(text)
}

const (
	entryESP    = `"protocol": "esp", "mode": "tunnel", "suite": "aes128gcm16", "encryption_key": "0xfeedc0de5eed00112233445566778899a1a2a3a4"`
	entryBeyond = `"protocol": "esp", "mode": "tunnel", "suite": "chacha20poly1305", "encryption_key": "0xfeedc0de5eed001122334455667788990011223344556677feedc0de5eed00112233a1a2"`
	sameOne     = `"protocol": "esp", "spi": "0x1001", "dst": "192.0.2.2", "src": ""`
)

// TestOpenAPI drives every path of a running appliance, once with and once without
// a transport, and without a NIC, into every answer that its description has.
func TestOpenAPI(t *testing.T) {
	rig.Require(t)
	socket := filepath.Join(sockets(t), "nic")
	start(t, write(t, "profile: ndis-v2\nsa_capacity: 2\nlocal: [192.0.2.2]\n"), "--transport", "stack0", "--control", socket)
	a := newAPI(t, socket)
	for _, path := range []string{"/", "/openapi.yaml", "/moved", "/status", "/nic", "/transport", "/windows", "/outbound", "/capabilities", "/counters"} {
		a.ask("GET", path, "", 200)
	}
	a.ask("POST", "/add", `{"sas": [{"name": "one", "spi": 4097, "dst": "192.0.2.2", `+entryESP+`}]}`, 200)
	a.ask("POST", "/add", `{"sas": [{"name": "one", "spi": 4098, "dst": "192.0.2.2", `+entryESP+`}]}`, 409)
	a.ask("POST", "/add", `{"sas": [{"name": "two", "spi": 4098, "dst": "192.0.2.2", `+entryBeyond+`}]}`, 422)
	a.ask("POST", "/add", `{"sas": [{"name": "two", "spi": 4098, `+entryESP+`}, {"name": "three", "spi": 4099, `+entryESP+`}]}`, 507)
	a.ask("POST", "/add", `{"sas": [{"name": "two", "spi": 4098, "dst": "192.0.2.2"}]}`, 400)
	if text := a.ask("GET", "/sas?limit=1&after=0", "", 200); strings.Count(text, `"name"`) != 1 {
		t.Errorf("after what was refused there are %s", text)
	}
	a.ask("GET", "/sas?limit=no", "", 400)
	a.ask("GET", "/sas/one", "", 200)
	a.ask("GET", "/sas/two", "", 404)
	a.ask("GET", "/windows", "", 200)
	a.ask("GET", "/counters?sa=one", "", 200)
	a.ask("GET", "/counters?sa=two", "", 404)
	for _, path := range []string{"/counters?name=one", "/sas?name=one", "/export?key=true", "/events?since=3", "/events/stream?since=3", "/capture?snap=64", "/trace?hosts=192.0.2.1"} {
		a.ask("GET", path, "", 400) // not everything, for want of the right word
	}
	a.ask("GET", "/export", "", 200)
	a.ask("GET", "/export?keys=maybe", "", 400)
	if text := a.ask("GET", "/export?keys=true", "", 200); !strings.Contains(text, "feedc0de5eed") {
		t.Errorf("keys were asked for, and came as %s", text)
	}
	a.ask("POST", "/update", `{`+sameOne+`, "high": 1}`, 204)
	a.ask("POST", "/update", `{"name": "one"}`, 400)
	a.ask("POST", "/update", `{"name": "two", "high": 1}`, 404)
	a.ask("POST", "/delete", `{"name": "one", "nic_only": true}`, 204)
	a.ask("POST", "/delete", `{"name": "one", "nic_only": true}`, 404)
	a.ask("POST", "/delete", `{`+sameOne+`}`, 204)
	a.ask("POST", "/delete", `{}`, 400)
	a.ask("POST", "/offload", `{"ah": false}`, 204)
	a.ask("POST", "/offload", `{}`, 400)
	a.ask("POST", "/flush", `{}`, 200)
	a.ask("POST", "/flush", `{"all": true}`, 400)
	a.ask("GET", "/events?last=5", "", 200)
	a.ask("GET", "/events?last=all", "", 400)
	a.ask("GET", "/events/stream?last=2&count=2", "", 200)
	a.ask("GET", "/events/stream?count=all", "", 400)
	a.crowd("/events/stream?last=1", 8)
	listen(t, "wire0").keepSending(framed(plain("192.0.2.2:9", 1, 100))) // for those who wait for frames
	for _, path := range []string{"/capture", "/trace"} {
		a.ask("GET", path+"?count=2&only=good,left-alone&snaplen=100&headers=true", "", 200)
		a.ask("GET", path+"?count=many", "", 400)
	}
	for _, path := range []string{"/capture", "/trace"} {
		a.crowd(path, 4)
	}
	a.elsewhere(t)
	if len(a.missing) > 0 {
		t.Errorf("described and never seen: %q", slices.Sorted(maps.Keys(a.missing)))
	}
}

// crowd has as many follow a stream as may, and then one more.
func (a *api) crowd(path string, most int) {
	for held := 0; held < most; { // those of the crowd before may not have left yet
		answer, err := a.client.Get("http://tapsec" + path)
		if err != nil {
			a.t.Fatal(err)
		}
		defer answer.Body.Close()
		if answer.StatusCode == http.StatusOK {
			held++
		} else {
			time.Sleep(10 * time.Millisecond)
		}
	}
	a.ask("GET", path, "", 503)
}

// elsewhere asks programs that lack the transport, or the NIC.
func (a *api) elsewhere(t *testing.T) {
	socket := filepath.Join(sockets(t), "nic")
	start(t, write(t, "{}\n"), "--wire", "w8", "--host", "h8", "--control", socket)
	nic := newAPI(t, socket)
	for _, path := range []string{"/transport", "/windows", "/outbound"} {
		nic.ask("GET", path, "", 404)
	}
	socket = filepath.Join(sockets(t), "transport")
	startTransport(t, write(t, "local: [192.0.2.2]\n"), "--in", "h8", "--out", "s8", "--control", socket)
	transport := newAPI(t, socket)
	transport.ask("GET", "/nic", "", 404)
	transport.ask("GET", "/capabilities", "", 501)
	transport.ask("POST", "/add", `{"sas": [{"name": "one", "spi": 4097, "dst": "192.0.2.2", `+entryESP+`}]}`, 200)
	transport.ask("POST", "/delete", `{"name": "one", "nic_only": true}`, 501)
	transport.ask("POST", "/update", `{"name": "one", "high": 1}`, 501)
	transport.ask("POST", "/offload", `{"active": true}`, 501)
	transport.ask("GET", "/capture", "", 501)
	transport.ask("GET", "/trace", "", 501)
	for _, other := range []*api{nic, transport} {
		maps.DeleteFunc(a.missing, func(seen string, _ bool) bool { return !other.missing[seen] })
	}
}

// An entry has the same fields in the description and in a configuration.
func TestOpenAPIEntry(t *testing.T) {
	doc, err := openapi3.NewLoader().LoadFromData(control.OpenAPI)
	if err != nil {
		t.Fatal(err)
	}
	schema, err := configs.Schema()
	if err != nil {
		t.Fatal(err)
	}
	var want struct {
		Properties struct {
			SAs struct {
				Items struct {
					Properties map[string]any
				}
			}
		}
	}
	decode(t, schema, &want)
	got := slices.Sorted(maps.Keys(doc.Components.Schemas["Entry"].Value.Properties))
	if fields := slices.Sorted(maps.Keys(want.Properties.SAs.Items.Properties)); !slices.Equal(got, fields) {
		t.Errorf("the description has %q, a configuration %q", got, fields)
	}
}
