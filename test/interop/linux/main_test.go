package linux

import (
	"testing"

	"tapsec/test/program"
)

func TestMain(m *testing.M) { program.Main(m) }
