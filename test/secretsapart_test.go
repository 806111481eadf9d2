package test

import (
	"context"
	"encoding/hex"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"golang.org/x/sys/unix"

	"tapsec/control"
	"tapsec/test/program"
)

// following reads all that is told of events, in both forms, until the program has ended.
type following struct {
	form chan []byte
	json *process
}

func (s *said) follow(socket string) following {
	dial := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}}
	request, err := http.NewRequest(http.MethodGet, "http://tapsec/events/stream?last=1000", nil)
	if err != nil {
		s.t.Fatal(err)
	}
	answer, err := dial.RoundTrip(request)
	if err != nil {
		s.t.Fatal(err)
	}
	all := following{make(chan []byte, 1), launchProgram(s.t, program.Command("events", "--follow", "--json", "--control", socket))}
	go func() {
		defer answer.Body.Close()
		text, _ := io.ReadAll(answer.Body) // ends with the program, in whatever way
		all.form <- text
	}()
	return all
}

// followed hears what was told to those that followed, once the program has ended.
func (s *said) followed(all following) {
	text := <-all.form
	<-all.json.exited
	for who, told := range map[string]string{"the stream of events": string(text), "events --follow": all.json.stdout.String()} {
		if !strings.Contains(told, "sa-added") {
			s.t.Errorf("%s:\n%s", who, told)
		}
		s.hear(who, []byte(told))
	}
	s.hear("errors of events --follow", []byte(all.json.logged()))
}

// apart runs NIC, transport and sender as three programs, asks each, and ends them by a
// signal and by a crash.
func (s *said) apart(config, text, dir, more string) {
	t, at := s.t, sockets(s.t)
	peers := write(t, strings.Replace(text, "local: [192.0.2.2, 198.51.100.10]", "local: [192.0.2.1]", 1))
	flags := func(name string) []string {
		return []string{"--control", filepath.Join(at, name), "--state", filepath.Join(dir, name+".state"), "--log-format", "json", "--log-level", "debug"}
	}
	programs := map[string]*process{}
	for _, one := range []struct{ name, line string }{{"run", "run -c " + config}, {"transport", "transport --in host0 --out stack0 -c " + config},
		{"send", "send --stack tx0 --out wire0 -c " + peers}} {
		all := flags(one.name)
		if one.name == "run" {
			all = append(all[:2], all[4:]...) // has no numbers to keep
		}
		p := launchProgram(t, program.Command(append(strings.Fields(one.line), all...)...))
		program.Await(t, one.name+" is ready", func() bool { return strings.Contains(p.logged(), `"ready"`) })
		programs[one.name] = p
	}
	s.traffic(text, filepath.Join(dir, "apart.pcap"))
	tx := listen(t, "tx0")
	defer tx.Close()
	client, err := control.Dial(filepath.Join(at, "send"))
	if err != nil {
		t.Fatal(err)
	}
	program.Await(t, "a packet is sealed", func() bool {
		tx.send(framed(plain(server, 1, 50)))
		var counted map[string]uint64
		return client.Get("outbound", &counted) == nil && counted["sealed"] > 0
	})
	for name, p := range programs {
		socket := filepath.Join(at, name)
		s.commands(config, socket, name, more)
		s.documents(socket, more)
		rewrite(t, config, strings.ReplaceAll(text, "0x", "0y"))
		p.signal(unix.SIGHUP)
	}
	programs["send"].signal(unix.SIGQUIT)
	<-programs["send"].exited
	for _, name := range []string{"transport", "run"} {
		s.hear("summary of "+name, []byte(programs[name].stop()))
	}
	for name, p := range programs {
		s.hear("log of "+name, []byte(p.logged()))
		if name != "run" {
			s.file(filepath.Join(dir, name+".state"))
		}
	}
	rewrite(t, config, text)
}

// rigged is a rig, whose keys are its own: its programs, its files and what it says.
func (s *said) rigged(config, more string) {
	t, base := s.t, sockets(s.t)
	t.Setenv("XDG_RUNTIME_DIR", base)
	dir := filepath.Join(base, "tapsec", "keyless")
	up, err := program.Command("rig", "up", "keyless", "--split").CombinedOutput()
	defer func() { s.tool("", "rig", "down", "keyless") }()
	if err != nil {
		t.Fatalf("%v\n%s", err, up)
	}
	text, err := os.ReadFile(filepath.Join(dir, "rig.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	for _, found := range regexp.MustCompile(`_key: (?:0x)?([0-9a-f]{32,})`).FindAllSubmatch(text, -1) {
		key, err := hex.DecodeString(string(found[1]))
		if err != nil {
			t.Fatal(err)
		}
		s.learn("of the rig", key)
	}
	s.hear("tapsec rig up", up)
	for _, line := range []string{"rig status", "rig status --json", "rig status keyless", "rig exec --rig keyless a -- ping -c2 -w60 10.77.0.2",
		"rig exec --rig keyless b -- ping -c2 -w60 fd77::1", "rig exec --rig keyless nic -- ip addr", "rig up keyless", "rig down nobody", "rig up other -c " + dir} {
		s.tool("", strings.Fields(line)...)
	}
	names, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	asked := 0
	for _, name := range names {
		path := filepath.Join(dir, name.Name())
		switch {
		case name.Type() == os.ModeSocket:
			s.documents(path, more)
			s.commands(config, path, "rig", more)
			asked++
		case name.Name() != "rig.yaml":
			s.file(path)
		}
	}
	if found := s.in(text); asked != 3 || len(found) == 0 {
		t.Errorf("%d programs were asked, and the keys in rig.yaml are found as %v", asked, found)
	}
}
