package soak

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"tapsec/internal/netns"
	"tapsec/tap"
)

const (
	sigTERM   = unix.SIGTERM
	sigKILL   = unix.SIGKILL
	stateSize = 32 << 20 // bytes of the disk for the states: twice what an hour of rekeys takes
	stateDir  = "state"
)

// engines are those that a program may be started with here.
func engines() []string {
	if tap.CanRedirect() != nil {
		return []string{"ring", "plain"}
	}
	return []string{"ring", "plain", "direct", "xdp"}
}

// program is a host's tapsec with its files, through all its restarts. If the NIC is
// another process, this is the transport's.
type program struct {
	c      *campaign
	number int
	set    set
	split  bool
	nic    *process // nil: in the same one
	args   []string // of the latest start
	*process
}

// all are the processes.
func (p *program) all() []*process {
	if p.nic == nil {
		return []*process{p.process}
	}
	return []*process{p.nic, p.process}
}

func newProgram(c *campaign, number int) *program {
	return &program{c: c, number: number, set: set{host: number, wire: []string{lineName, wireName}[number], how: c.random.IntN(ways)}}
}

// mountState makes the disk that holds both states.
func (c *campaign) mountState() error {
	dir := filepath.Join(c.o.Dir, stateDir)
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	return unix.Mount("soak", dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, fmt.Sprintf("size=%d,mode=0700", stateSize))
}

func (c *campaign) unmountState() error {
	err := unix.Unmount(filepath.Join(c.o.Dir, stateDir), unix.MNT_DETACH)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOENT) { // it was never mounted
		return nil
	}
	return err
}

// start starts what is not running, and waits until it says that it is ready.
func (p *program) start(engine string) {
	if p.split && (p.nic == nil || p.nic.gone()) {
		p.nic = p.begin(engine, "run", "--wire", wireName, "--host", hostName, "--control", p.socket(true))
	}
	if p.process != nil && !p.process.gone() {
		return
	}
	name := hostNames[p.number]
	common := []string{"--stack-netns", name, "--control", p.socket(false), "--state", filepath.Join(p.c.o.Dir, stateDir, name+".json")}
	what := append([]string{"run", "--wire", wireName, "--transport", stackName}, common...)
	switch {
	case p.number == 0:
		what = append([]string{"send", "--stack", stackName, "--out", lineName}, common...)
	case p.split:
		what = append([]string{"transport", "--in", hostName, "--out", stackName, "--nic", p.socket(true)}, common...)
	}
	p.process = p.begin(engine, what...)
}

func (p *program) begin(engine string, args ...string) *process {
	if args[0] == "run" && (engine == "direct" || engine == "xdp") {
		engine = "auto" // it has TAPs alone
	}
	p.args = append(args, "-c", p.config(), "--engine", engine)
	run, err := p.c.start(args[0]+" of host "+hostNames[p.number]+", engine "+engine, p.args...)
	if err != nil {
		panic("soak: the program cannot be executed: " + err.Error())
	}
	select {
	case <-run.ready:
	case <-run.exited:
	case <-time.After(patience):
		p.c.violate("start", "%s is not ready after %s; it said\n%s", run.name, patience, run.said())
	}
	return run
}

// socket is the control socket of the NIC, or of the process with the transport.
func (p *program) socket(nic bool) string {
	if nic && p.split {
		return p.c.file(p.number, "-nic.sock")
	}
	return p.c.file(p.number, ".sock")
}

func (p *program) config() string { return p.c.file(p.number, ".yaml") }

// text is the correct configuration.
func (p *program) text() string {
	p.set.sas = p.set.sas[:0]
	for _, l := range lines() {
		p.set.sas = append(p.set.sas, p.c.sas.live[l]...)
	}
	return p.set.text()
}

// write puts the configuration in place as an editor does.
func (p *program) write(text string) error {
	fresh := p.config() + ".new"
	return errors.Join(os.WriteFile(fresh, []byte(text), 0o600), os.Rename(fresh, p.config()))
}

// reload writes a configuration and makes the program read it.
func (p *program) reload(text string) {
	if err := p.write(text); err != nil {
		p.c.violate("laboratory", "%v", err)
	}
	p.reread()
}

// reread makes the program read the configuration.
func (p *program) reread() {
	for _, process := range p.all() {
		process.signal(unix.SIGHUP)
	}
}

// forget takes the state away.
func (p *program) forget() error {
	paths, err := filepath.Glob(filepath.Join(p.c.o.Dir, stateDir, hostNames[p.number]+".json*"))
	for _, path := range paths {
		err = errors.Join(err, os.Remove(path))
	}
	return err
}

// ask reads a document from the control socket; an error's text is the answer, too.
func (p *program) ask(document string) string {
	answer, err := p.client(false, 2*time.Second).Get("http://tapsec/" + document)
	return p.answer(answer, err)
}

// tell makes the program do something to an SA, which must succeed if the NIC has
// the SA.
func (p *program) tell(what, document string) {
	answer, err := p.client(true, patience).Post("http://tapsec/"+what, "application/json", strings.NewReader(document))
	if text := p.answer(answer, err); text != "" && !strings.Contains(text, "no such SA") {
		p.c.violate("control", "%s answers %s of %s with %s", p.name, what, document, text)
	}
}

func (p *program) client(nic bool, patience time.Duration) *http.Client {
	return &http.Client{Timeout: patience, Transport: &http.Transport{DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", p.socket(nic))
		}}}
}

func (p *program) answer(answer *http.Response, err error) string {
	if err != nil {
		return err.Error()
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		return err.Error()
	}
	return strings.Join(strings.Fields(string(text)), " ")
}

// holds waits until the program has an SA.
func (p *program) holds(name string) {
	for deadline := time.Now().Add(patience); !strings.Contains(p.ask("windows"), `"`+name+`"`); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			p.c.violate("reload", "%s does not have %s %s after SIGHUP; it said\n%s", p.name, name, patience, p.said())
			return
		}
	}
}

// look looks for files that pile up beside the states.
func (p *program) look() {
	const most = 8
	entries, err := os.ReadDir(filepath.Join(p.c.o.Dir, stateDir))
	if err != nil || len(entries) > most {
		p.c.violate("files", "%d files beside the states: %v, %v", len(entries), entries, err)
	}
}

// dropped counts what the kernel has dropped at the interfaces.
func (c *campaign) dropped() (n uint64) {
	count := func(name string) error {
		counters, err := netns.Counters(name)
		n += counters.TxDropped + counters.RxDropped
		return err
	}
	err := errors.Join(count(lineName), count(wireName))
	if c.programs[1].split {
		err = errors.Join(err, count(hostName))
	}
	for _, h := range c.hosts {
		err = errors.Join(err, h.ns.Do(func() error { return count(stackName) }))
	}
	if err != nil {
		c.violate("laboratory", "counters: %v", err)
	}
	return n
}

// endAll ends all processes.
func (p *program) endAll(s unix.Signal) {
	for _, process := range p.all() {
		process.end(s)
	}
}

// tidy looks for sockets left by processes that ended by themselves.
func (p *program) tidy() {
	for _, nic := range []bool{true, false} {
		if err := absent(p.socket(nic)); err != nil {
			p.c.violate("files", "after its end: %v", err)
		}
	}
}

// deleted waits for the end of a program whose interface was deleted.
func (p *process) deleted() {
	const gone = 3 // the exit code for that
	select {
	case <-p.exited:
		if code := p.cmd.ProcessState.ExitCode(); code != gone {
			p.c.violate("end", "%s ends with exit code %d after its interface was deleted; it said\n%s", p.name, code, p.said())
		}
	case <-time.After(patience):
		p.c.violate("end", "%s does not end within %s after its interface was deleted; it said\n%s", p.name, patience, p.said())
		p.end(sigKILL)
	}
}

// finish ends the campaign as a user would: one program by SIGTERM, the other by
// deleting an interface under it. Only their states may remain.
func (c *campaign) finish() {
	last := c.programs[c.random.IntN(2)]
	c.programs[1-last.number].endAll(sigTERM)
	pulled := last.all()[0] // the one at the wire
	pulled.wanted.Store(true)
	c.try(netns.Delete(last.set.wire))
	pulled.deleted()
	last.endAll(sigTERM)
	for _, p := range c.programs {
		p.tidy()
	}
	entries, _ := os.ReadDir(filepath.Join(c.o.Dir, stateDir)) // mounted by us
	left := slices.DeleteFunc(entries, func(e os.DirEntry) bool { return strings.Contains(e.Name(), ".json") })
	if len(left) > 0 {
		c.violate("files", "left beside the states: %v", left)
	}
}
