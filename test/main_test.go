// Package test runs the whole program over real TAP interfaces, in namespaces
// that it makes: tapsec is a process of its own, and the tests are the network
// around it.
package test

import (
	"testing"

	"tapsec/test/program"
)

func TestMain(m *testing.M) { program.Main(m) }
