package test

import (
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"tapsec/control"
	"tapsec/internal/lab/rig"
	"tapsec/internal/netns"
	"tapsec/test/program"
)

// While an interface does not come up, as one without its other end, the program answers, reloads and ends.
func TestNotUp(t *testing.T) {
	rig.Require(t)
	in(t, nil, "link add near type veth peer name far", "link set near up")
	t.Cleanup(func() { netns.Delete("near") })
	socket := filepath.Join(sockets(t), "s")
	p := launch(t, write(t, "wire: {name: near, attach: true}\n"+moreSAs), "--control", socket)
	said := func(text string) bool { return strings.Contains(p.logged(), text) }
	program.Await(t, "tapsec is confined", func() bool { return said("msg=confined") })
	client, err := control.Dial(socket)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := client.Show("web"); err != nil && !said("does not come up") {
		t.Errorf("while it waits: %v", err)
	}
	p.signal(unix.SIGHUP)
	program.Await(t, "tapsec reloads", func() bool { return said("msg=reloaded") })
	late := said("does not come up") // on a machine that is slower than its patience
	p.signal(unix.SIGTERM)
	p.end(0)
	if said("msg=ready") && !late {
		t.Error("it waited for the interface")
	}
}
