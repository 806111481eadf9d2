package strongswan

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"tapsec/keys"
	"tapsec/sa"
	"tapsec/test/program"
)

const daemon = "/usr/lib/ipsec/charon"

// charon is one of the two IKE daemons, in its host's namespace.
type charon struct {
	*program.Process
	dir  string
	host *host
}

// startCharon starts a daemon and gives it its connections to the peer. Its /run
// is its own: the path of its pid file is built in.
func startCharon(t *testing.T, h, peer *host) *charon {
	t.Helper()
	c := &charon{dir: t.TempDir(), host: h}
	conf, conns := filepath.Join(c.dir, "strongswan.conf"), filepath.Join(c.dir, "swanctl.conf")
	write(t, conf, c.settings())
	write(t, conns, connections(h, peer))
	write(t, c.log(), "")
	cmd := exec.Command("unshare", "--mount", "sh", "-c", "mount -t tmpfs run /run && exec "+daemon)
	cmd.Env = append(os.Environ(), "STRONGSWAN_CONF="+conf)
	c.Process = program.Launch(t, h.ns, cmd)
	program.Await(t, "charon's control socket", func() bool {
		_, err := os.Stat(c.socket())
		return err == nil
	})
	c.ctl(t, "--load-all", "--file", conns)
	program.Await(t, "ipsec0", func() bool { return h.mtu("ipsec0", tunMTU) == nil })
	return c
}

func (c *charon) log() string    { return filepath.Join(c.dir, "charon.log") }
func (c *charon) socket() string { return filepath.Join(c.dir, "vici") }

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func (c *charon) settings() string {
	return fmt.Sprintf(`charon {
  load = random nonce openssl aes sha1 sha2 md5 hmac gcm ccm ctr cmac xcbc chapoly curve25519 kdf kernel-libipsec kernel-netlink socket-default vici
  filelog {
    log {
      path = %s
      flush_line = yes
      default = 1
      chd = 4
    }
  }
  plugins {
    vici {
      socket = unix://%s
    }
  }
}
`, c.log(), c.socket())
}

// connections is a host's side of two IKE SAs, one over each IP version. The
// initiator has a child for each suite, the responder one for all of them.
func connections(h, peer *host) string {
	var b strings.Builder
	b.WriteString("connections {\n")
	for _, v := range versions {
		fmt.Fprintf(&b, "  %s {\n    version = 2\n    proposals = aes128-sha256-curve25519\n    mobike = no\n", v)
		fmt.Fprintf(&b, "    local_addrs = %s\n    remote_addrs = %s\n", h.outer(v), peer.outer(v))
		fmt.Fprintf(&b, "    local {\n      auth = psk\n      id = %s\n    }\n    remote {\n      auth = psk\n      id = %s\n    }\n    children {\n", h.name, peer.name)
		child := func(name, proposals string) {
			fmt.Fprintf(&b, "      %s {\n        esp_proposals = %s\n        local_ts = %s\n        remote_ts = %s\n      }\n", name, proposals, h.selectors(v), peer.selectors(v))
		}
		if h.initiates() {
			for _, s := range suites() {
				child(s, s)
			}
		} else {
			child("all", strings.Join(suites(), ","))
		}
		b.WriteString("    }\n  }\n")
	}
	b.WriteString("}\nsecrets {\n  ike {\n    secret = \"of nobody\"\n  }\n}\n")
	return b.String()
}

// ctl has swanctl ask the daemon for something.
func (c *charon) ctl(t *testing.T, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), program.Patience)
	defer cancel()
	out, err := exec.CommandContext(ctx, "swanctl", append(args, "--uri", "unix://"+c.socket())...).CombinedOutput()
	if err != nil {
		t.Fatalf("swanctl %s: %v\n%s\ncharon:\n%s", strings.Join(args, " "), err, out, c.logged(60))
	}
	return string(out)
}

func (c *charon) logged(lines int) string {
	text, _ := os.ReadFile(c.log()) // only for a message
	return keys.Redact(program.Tail(string(text), lines))
}

// says counts the lines of the log that hold some text.
func (c *charon) says(t *testing.T, text string) int {
	t.Helper()
	return strings.Count(c.read(t), text)
}

func (c *charon) read(t *testing.T) string {
	t.Helper()
	log, err := os.ReadFile(c.log())
	if err != nil {
		t.Fatal(err)
	}
	return string(log)
}

// inbound gives the SAs to this host that the log has the keys of, oldest first.
func (c *charon) inbound(t *testing.T, v version) (all []*sa.SA) {
	t.Helper()
	for _, s := range c.sas(t) {
		if s.Dst == c.host.outer(v) {
			all = append(all, s)
		}
	}
	return all
}

// sas are those of the log, in its order.
func (c *charon) sas(t *testing.T) []*sa.SA {
	t.Helper()
	read, err := keys.Read(c.log(), []byte(c.read(t)))
	if err != nil || len(read.Notes) > 0 {
		t.Fatalf("keys of charon's log: %v %v", read, err)
	}
	return read.All
}

// charonVersion is the last word of "Linux strongSwan 5.9.8".
func charonVersion(t *testing.T) string {
	t.Helper()
	out, err := exec.Command(daemon, "--version").Output()
	words := strings.Fields(string(out))
	if err != nil || len(words) == 0 {
		t.Fatalf("%s --version: %v %q", daemon, err, out)
	}
	return words[len(words)-1]
}
