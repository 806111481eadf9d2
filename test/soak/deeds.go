package soak

import (
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"tapsec/internal/lab/rig"
	"tapsec/internal/netns"
)

// try reports what the laboratory could not do.
func (c *campaign) try(err error) {
	if err != nil {
		c.violate("laboratory", "%v", err)
	}
}

// flapStack takes the stack's interface down and up a few times, which costs it its
// IPv6 addresses.
func flapStack(c *campaign, p *program, r *rand.Rand) func() {
	h := c.hosts[p.number]
	c.flap(r, func() error { return h.ns.Do(func() error { return rig.Down(stackName) }) },
		func() error { return h.ns.Do(func() error { return netns.Up(stackName) }) })
	return nil
}

// flapWire does the same with the program's end of the wire.
func flapWire(c *campaign, p *program, r *rand.Rand) func() {
	c.flap(r, func() error { return rig.Down(p.set.wire) }, func() error { return netns.Up(p.set.wire) })
	return nil
}

// flap does so under load.
func (c *campaign) flap(r *rand.Rand, down, up func() error) {
	for range 1 + r.IntN(24) {
		for _, h := range c.hosts {
			h.burst(16+r.IntN(48), false)
		}
		time.Sleep(time.Duration(r.IntN(1000)) * time.Microsecond)
		c.try(down())
		time.Sleep(time.Duration(r.IntN(5)) * time.Millisecond)
		c.try(up())
		time.Sleep(time.Duration(r.IntN(5)) * time.Millisecond)
	}
}

// flush takes all addresses away for long enough to be noticed. The host's mending
// gives them back.
func flush(c *campaign, p *program, r *rand.Rand) func() {
	c.try(c.hosts[p.number].ns.Do(func() error { return rig.Flush(stackName) }))
	time.Sleep(time.Duration(r.IntN(1500)) * time.Millisecond)
	return nil
}

// rename gives the stack's interface another name.
func rename(c *campaign, p *program, r *rand.Rand) func() {
	c.try(c.hosts[p.number].ns.Do(func() error {
		if r.IntN(2) == 0 && rig.Rename(stackName, movedName) == nil {
			return nil
		}
		err := rig.Down(stackName)
		if err == nil {
			err = rig.Rename(stackName, movedName)
		}
		if err == nil {
			err = netns.Up(movedName)
		}
		return err
	}))
	time.Sleep(time.Duration(r.IntN(1500)) * time.Millisecond)
	return c.hosts[p.number].mend
}

// stop suspends the program.
func stop(c *campaign, p *program, r *rand.Rand) func() {
	process := p.all()[r.IntN(len(p.all()))]
	process.signal(unix.SIGSTOP)
	time.Sleep(time.Duration(r.IntN(500)) * time.Millisecond)
	return func() { process.signal(unix.SIGCONT) }
}

// restart ends the program, or one or both of its two processes, and starts it with
// another engine and perhaps another way to state the SAs' direction.
func restart(s unix.Signal) func(*campaign, *program, *rand.Rand) func() {
	return func(c *campaign, p *program, r *rand.Rand) func() {
		c.killed = c.killed || s == sigKILL
		which := p.all()
		switch r.IntN(3) {
		case 0:
			which = which[:1]
		case 1:
			which = which[len(which)-1:]
		}
		for _, process := range which {
			process.end(s)
		}
		if s == sigTERM && len(which) == len(p.all()) {
			p.tidy()
		}
		engine, how := c.engines[r.IntN(len(c.engines))], r.IntN(ways)
		return func() {
			p.set.how = how
			p.reload(p.text())
			p.start(engine)
		}
	}
}

// unplug deletes the stack's interface, which ends the program, and makes another
// one.
func unplug(c *campaign, p *program, r *rand.Rand) func() {
	h := c.hosts[p.number]
	p.wanted.Store(true)
	c.try(h.ns.Do(func() error { return netns.Delete(stackName) }))
	p.deleted()
	engine := c.engines[r.IntN(len(c.engines))]
	return func() {
		c.try(h.plug())
		p.start(engine)
	}
}

// dropSAs reloads a configuration that lacks some SAs, and later the whole one.
func dropSAs(c *campaign, p *program, r *rand.Rand) func() {
	text := p.text()
	var kept []*association
	for _, a := range p.set.sas {
		if r.IntN(2) == 0 {
			kept = append(kept, a)
		}
	}
	p.set.sas = kept
	p.reload(p.set.text())
	time.Sleep(time.Duration(r.IntN(300)) * time.Millisecond)
	return func() { p.reload(text) }
}

// cutFile makes the program read a configuration that was cut in the middle of a
// write, often at a place where it is still well-formed: after a line, or at its
// beginning.
func cutFile(c *campaign, p *program, r *rand.Rand) func() {
	text := p.text()
	at := r.IntN(len(text))
	switch r.IntN(4) {
	case 0:
		at = strings.LastIndexByte(text[:at], '\n') + 1
	case 1:
		at = strings.LastIndexByte(text[:at/8], '\n') + 1
	}
	c.try(os.WriteFile(p.config(), []byte(text[:at]), 0o600))
	p.reread()
	time.Sleep(time.Duration(r.IntN(300)) * time.Millisecond)
	return func() { p.reload(text) }
}

// fillDisk leaves no room for the states.
func fillDisk(c *campaign, _ *program, r *rand.Rand) func() {
	path := filepath.Join(c.o.Dir, stateDir, "filler")
	c.full.Store(true)
	f, err := os.Create(path)
	c.try(err)
	for chunk := 64 << 10; chunk >= 512; chunk /= 2 {
		for err == nil {
			_, err = f.Write(make([]byte, chunk))
		}
		err = nil
	}
	f.Close()
	time.Sleep(time.Duration(r.IntN(1500)) * time.Millisecond)
	return func() {
		c.try(os.Remove(path))
		time.Sleep(looksAgain)
		c.full.Store(false)
	}
}

// looksAgain is how long a program may take to notice that a disk has room again.
const looksAgain = 1500 * time.Millisecond

// listenHow changes how the program's log is read.
func listenHow(how int32) func(*campaign, *program, *rand.Rand) func() {
	return func(c *campaign, p *program, r *rand.Rand) func() {
		process := p.process
		if how == deaf {
			process.deafen()
		} else {
			process.ear.Store(how)
		}
		time.Sleep(time.Duration(r.IntN(400)) * time.Millisecond)
		return func() { process.ear.Store(attentive) }
	}
}

// crowd opens many connections to the control socket that ask nothing, ask only
// half, or do not read the answer.
func crowd(c *campaign, p *program, r *rand.Rand) func() {
	var all []net.Conn
	for range 200 {
		conn, err := net.DialTimeout("unix", c.file(p.number, ".sock"), 100*time.Millisecond)
		if err != nil {
			break // there are enough
		}
		all = append(all, conn)
		request := "GET /windows HTTP/1.1\r\nHost: tapsec\r\n\r\n"
		_ = conn.SetWriteDeadline(time.Now().Add(100 * time.Millisecond))
		_, _ = io.WriteString(conn, request[:r.IntN(len(request)+1)])
	}
	time.Sleep(time.Duration(r.IntN(300)) * time.Millisecond)
	return func() {
		for _, conn := range all {
			conn.Close()
		}
	}
}

// unload makes the NIC give up its copies of some SAs: the transport does their work
// itself until the next reload.
func unload(c *campaign, p *program, r *rand.Rand) func() {
	for _, l := range lines() {
		for _, a := range c.sas.live[l] {
			if a.from != p.number && r.IntN(2) == 0 {
				p.tell("delete", fmt.Sprintf(`{"protocol": "esp", "spi": "%#x", "dst": %q, "src": %q, "nic_only": true}`, a.spi, a.dst, a.src))
			}
		}
	}
	return nil
}

// rekey gives one line new SAs beside the old ones, the receiver first, and then
// takes the old ones away, the sender first.
func rekey(c *campaign, _ *program, r *rand.Rand) func() {
	all := lines()
	l := all[r.IntN(len(all))]
	sender, receiver := c.programs[l.from], c.programs[1-l.from]
	fresh := c.sas.generation(l)
	old := c.sas.live[l]
	c.sas.live[l] = append(append([]*association{}, old...), fresh...)
	receiver.reload(receiver.text())
	receiver.holds(fresh[0].name)
	sender.reload(sender.text())
	return func() {
		c.sas.live[l] = fresh
		sender.reload(sender.text())
		c.passes(l, fresh)
		receiver.reload(receiver.text())
	}
}

// passes waits until a line is sealed with SAs, and what the old ones sealed has
// arrived.
func (c *campaign) passes(l line, fresh []*association) {
	for deadline := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		fresh[0].mu.Lock()
		begun := len(fresh[0].numbers) > 0
		fresh[0].mu.Unlock()
		if begun {
			break
		}
		if time.Now().After(deadline) {
			c.violate("reload", "%s is not sealed with %s %s after SIGHUP", l, fresh[0].name, patience)
			break
		}
	}
	next, _ := c.ledgers[l].position()
	for deadline := time.Now().Add(arrival); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		if _, highest := c.ledgers[l].position(); highest.any > next {
			return
		}
	}
}

// strangers adds SAs that nobody uses, in place of those added before.
func strangers(c *campaign, p *program, r *rand.Rand) func() {
	p.set.strangers = nil
	for i := range r.IntN(40) {
		p.set.strangers = append(p.set.strangers, c.sas.stranger(i))
	}
	p.reload(p.text())
	return nil
}

// garbage reloads a configuration with a mistake, which changes nothing.
func garbage(c *campaign, p *program, r *rand.Rand) func() {
	text := p.text()
	at := r.IntN(len(text))
	p.reload(text[:at] + fmt.Sprintf("\n\x01 }{ : %d\n", r.IntN(1000)) + text[at:])
	time.Sleep(time.Duration(r.IntN(100)) * time.Millisecond)
	return func() { p.reload(text) }
}

// sameFile makes the program read the same configuration over and over.
func sameFile(c *campaign, p *program, r *rand.Rand) func() {
	for range 1 + r.IntN(20) {
		p.reread()
		time.Sleep(time.Duration(r.IntN(5)) * time.Millisecond)
	}
	return nil
}

// transfer moves a stream over TCP on one path; it must arrive whole.
func transfer(c *campaign, p *program, r *rand.Rand) func() {
	number := r.IntN(len(paths))
	data := make([]byte, 1<<10+r.IntN(256<<10))
	for i := range data {
		data[i] = byte(r.Uint32())
	}
	result := make(chan error, 1)
	go func() { result <- c.stream(number, p.number, data) }()
	return func() {
		if err := <-result; err != nil {
			c.violate("transfer", "%d bytes over TCP on %s: %v\n%s", len(data), line{number, p.number}, err, c.evidence())
		}
	}
}

// twin starts the same program once more, which must notice that it is already
// running.
func twin(c *campaign, p *program, r *rand.Rand) func() {
	run, err := c.start("twin of "+p.name, p.args...)
	if err != nil {
		c.try(err)
		return nil
	}
	run.wanted.Store(true)
	select {
	case <-run.exited:
		if code := run.cmd.ProcessState.ExitCode(); code != 1 && code != 2 {
			c.violate("twin", "a second %s ends with exit code %d; it said\n%s", p.name, code, run.said())
		}
	case <-time.After(patience):
		c.violate("twin", "a second %s runs beside the first; it said\n%s", p.name, run.said())
		run.end(sigKILL)
	}
	return nil
}
