// Package strongswan has two strongSwan daemons talk to each other through tapsec:
// IKEv2 with rekeying, and ESP by kernel-libipsec, which is always in tunnel mode
// and in UDP. The keys are those that the receiving daemon logs.
package strongswan

import (
	"testing"

	"tapsec/test/program"
)

func TestMain(m *testing.M) { program.Main(m) }
