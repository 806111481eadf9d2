package linux

import (
	"os"
	"path/filepath"
	"regexp"
	"testing"

	"tapsec/internal/lab/rig"
	"tapsec/test/interop"
	"tapsec/test/program"
)

// TestAttachedInGuest has stacks of a kernel that has SCTP, bonds and more tunnels talk through tapsec. Its
// veths, as veths do, leave SCTP's CRC32c and the cutting of TCP to hardware, also inside tunnels.
func TestAttachedInGuest(t *testing.T) {
	interop.Require(t, "linux.uml", "ip", "ethtool", "curl")
	rig.Require(t)
	out := t.TempDir()
	const config = `
local: [192.0.2.2, 2001:db8::2]
sas:
  - {name: none, spi: 0xe001, src: 192.0.2.77, dst: 192.0.2.2, protocol: esp, mode: transport, suite: aes128gcm16,
     encryption_key: 0x202122232425262728292a2b2c2d2e2fa1a2a3a4}
`
	if err := os.WriteFile(filepath.Join(out, "tapsec.yaml"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	uml := boot(t, "attached.py", out, "TAPSEC="+program.Path)
	for _, name := range []string{"tcp", "sctp", "bond", "gre", "geneve", "ipip", "macvlan", "passthru", "bridge", "port", "vlan", "ufo"} {
		uml.Await(" "+name+":", 1)
		if !regexp.MustCompile("(?m)^carried " + name + ": uncut=0 oversize=0 ").MatchString(uml.Text()) {
			t.Errorf("%s was not carried, or not whole", name)
		}
	}
	uml.Await(" sctp-merged:", 1) // what comes behind it is carried
	if !regexp.MustCompile("(?m)^carried sctp-merged: uncut=[1-9]").MatchString(uml.Text()) {
		t.Error("SCTP that was merged ended what came behind it, or was not counted")
	}
	uml.Await("all carried", 1)
	uml.Join()
}
