// Package tshark has tshark decode what tapsec opens: frames that scapy sealed and
// damaged, frames of a Linux kernel, and tapsec's own. Its keys are a table esp_sa
// that `tapsec keys` wrote.
package tshark

import (
	"testing"

	"tapsec/test/program"
)

func TestMain(m *testing.M) { program.Main(m) }
