package test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"tapsec/control"
	"tapsec/internal/lab/rig"
	"tapsec/test/program"
)

var metricsAt = regexp.MustCompile(`at=(http://[0-9.:]+/metrics)`)

// measured starts an appliance that answers Prometheus, and sends something of each
// kind through it.
func measured(t *testing.T) (address string, client *control.Client) {
	t.Helper()
	if text, err := exec.Command("ip", "link", "set", "lo", "up").CombinedOutput(); err != nil {
		t.Fatalf("%s, %v", text, err)
	}
	socket := filepath.Join(sockets(t), "nic")
	p := launch(t, write(t, "local: [198.51.100.10]\n"+moreSAs), "--transport", "stack0", "--control", socket, "--metrics", "127.0.0.1:0")
	said := p.waitLog("msg=ready")
	m := metricsAt.FindStringSubmatch(said)
	if m == nil {
		t.Fatalf("no address in\n%s", said)
	}
	wire, stack := listen(t, "wire0"), listen(t, "stack0")
	s := sealer(t, sasOf(t, moreSAs)["web"])
	good := framed(sealed(t, s, plain(server, 1, 100)))
	wire.send(good)
	stack.next()
	wire.send(good) // a replay
	wire.send(spoiled(framed(sealed(t, s, plain(server, 2, 100)))))
	wire.send(framed(sealed(t, s, plain(server, 3, 100))))
	stack.next()
	client, err := control.Dial(socket)
	if err != nil {
		t.Fatal(err)
	}
	return m[1], client
}

func fetch(t *testing.T, address string) []byte {
	t.Helper()
	answer, err := http.Get(address)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil || answer.StatusCode != http.StatusOK {
		t.Fatalf("%s: %s %s, %v", address, answer.Status, text, err)
	}
	return text
}

// TestCounters: the sums agree, what is scraped is what the socket tells, and
// Prometheus's own tool finds nothing wrong with it.
func TestCounters(t *testing.T) {
	rig.Require(t)
	promtool, err := exec.LookPath("promtool")
	if err != nil {
		rig.Missing(t, "promtool")
	}
	address, client := measured(t)
	sums := map[string]float64{}
	program.Await(t, "counters that agree", func() bool { // they are published once a batch
		all, err := client.Counters("")
		if err != nil {
			t.Fatal(err)
		}
		clear(sums)
		for _, c := range all {
			for _, s := range c.Samples {
				sums[c.Name] += s.Value
				sums[c.Name+" "+s.Labels["way"]+s.Labels["reason"]+s.Labels["sa"]] += s.Value
			}
		}
		return sums["tapsec_nic_time_seconds to_host"] > 0 && // the first batch is sampled
			sums["tapsec_nic_status_frames"] == sums["tapsec_received_frames to_host"] &&
			sums["tapsec_received_frames"] == sums["tapsec_sent_frames"]+sums["tapsec_kept_frames"]+sums["tapsec_lost_frames"] &&
			sums["tapsec_nic_status_frames"] == sums["tapsec_nic_reason_frames"] && sums["tapsec_nic_reason_frames esp-icv"] == 1 &&
			sums["tapsec_transport_frames"] == sums["tapsec_nic_status_frames"] && sums["tapsec_sa_packets web"] == 2 && sums["tapsec_sa_replays web"] == 1
	})
	page, err := os.ReadFile("../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	all, err := client.Counters("")
	if err != nil || len(all) < 25 {
		t.Errorf("%d counters, %v", len(all), err)
	}
	for _, c := range all {
		if line := fmt.Sprintf("| `%s` | %s | %s | %s |", c.Name, c.Kind, c.Unit, c.Help); !bytes.Contains(page, []byte(line)) {
			t.Errorf("docs/metrics.md lacks %s", line)
		}
	}
	text := fetch(t, address)
	if !bytes.Contains(text, []byte(`tapsec_sa_replays_total{sa="web"} 1`)) || !regexp.MustCompile(`tapsec_nic_time_seconds_bucket\{way="to_host",le="\+Inf"\} [1-9]`).Match(text) {
		t.Errorf("scraped:\n%s", text)
	}
	check := exec.Command(promtool, "check", "metrics")
	check.Stdin = bytes.NewReader(text)
	if said, err := check.CombinedOutput(); err != nil || len(said) > 0 {
		t.Errorf("%s, %v", said, err)
	}
	if said, err := exec.Command(promtool, "check", "rules", "../docs/metrics/alerts.yaml").CombinedOutput(); err != nil {
		t.Errorf("%s, %v", said, err)
	}
}

// queries are those of the dashboard and of the alert rules.
func queries(t *testing.T) (all []string) {
	t.Helper()
	var board struct {
		Panels []struct {
			Targets []struct{ Expr string }
		}
	}
	text, err := os.ReadFile("../docs/metrics/dashboard.json")
	if err != nil {
		t.Fatal(err)
	}
	decode(t, text, &board)
	for _, panel := range board.Panels {
		for _, target := range panel.Targets {
			all = append(all, target.Expr)
		}
	}
	rules, err := os.ReadFile("../docs/metrics/alerts.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range regexp.MustCompile(`(?m)^ +expr: (.*)$`).FindAllStringSubmatch(string(rules), -1) {
		all = append(all, m[1])
	}
	return all
}

// TestPrometheus has Debian's Prometheus scrape a running appliance and answer every
// query of the dashboard; those of the alerts have the series that they compare.
func TestPrometheus(t *testing.T) {
	rig.Require(t)
	prometheus, err := exec.LookPath("prometheus")
	if err != nil {
		rig.Missing(t, "prometheus")
	}
	address, _ := measured(t)
	dir := t.TempDir()
	config := filepath.Join(dir, "prometheus.yml")
	target, _ := url.Parse(address)
	rewrite(t, config, fmt.Sprintf("scrape_configs:\n- job_name: tapsec\n  scrape_interval: 1s\n  static_configs: [{targets: ['%s']}]\n", target.Host))
	const at = "127.0.0.1:19090"
	cmd := exec.Command(prometheus, "--config.file="+config, "--storage.tsdb.path="+filepath.Join(dir, "data"), "--web.listen-address="+at)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: unix.SIGKILL}
	var said bytes.Buffer
	cmd.Stderr = &said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	ask := func(query string) int {
		answer, err := http.Get("http://" + at + "/api/v1/query?query=" + url.QueryEscape(query))
		if err != nil {
			return 0 // not up yet
		}
		defer answer.Body.Close()
		var result struct {
			Status, Error string
			Data          struct{ Result []json.RawMessage }
		}
		if err := json.NewDecoder(answer.Body).Decode(&result); err == nil && result.Status == "error" {
			t.Fatalf("%s: %s", query, result.Error)
		}
		return len(result.Data.Result)
	}
	program.Await(t, "two scrapes", func() bool { return ask("count_over_time(tapsec_sas[1m]) >= 2") > 0 })
	for _, query := range queries(t) {
		series, _, _ := strings.Cut(query, " > ") // what an alert compares
		series, _, _ = strings.Cut(series, " == ")
		if ask(series) == 0 {
			t.Errorf("no answer to %s\n%s", query, program.Tail(said.String(), 5))
		}
		ask(query)
	}
}
