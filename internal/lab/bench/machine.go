package bench

import (
	"os"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"

	"tapsec/tap"
)

// Machine is what the figures belong to.
type Machine struct {
	Processor string `json:"processor"`
	Cores     int    `json:"cores"`
	Kernel    string `json:"kernel"`
	Isolation string `json:"page_table_isolation"` // what the kernel says of its defence against Meltdown, which changes what a call costs
	Go        string `json:"go"`
	EmptyCall spread `json:"empty_call_ns"`
	Engine    string `json:"engine"`
	EngineWhy string `json:"engine_why"`
}

func machine(cores int) Machine {
	engine, why := tap.Probe()
	m := Machine{Processor: processor(), Cores: cores, Kernel: "unknown", Isolation: "unknown", Go: runtime.Version() + " " + runtime.GOARCH,
		EmptyCall: emptyCall(), Engine: engine.String(), EngineWhy: why}
	var u unix.Utsname
	if unix.Uname(&u) == nil {
		m.Kernel = unix.ByteSliceToString(u.Release[:])
	}
	if text, err := os.ReadFile("/sys/devices/system/cpu/vulnerabilities/meltdown"); err == nil {
		m.Isolation = strings.TrimSpace(string(text))
	}
	return m
}

func processor() string {
	text, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return "unknown"
	}
	for line := range strings.Lines(string(text)) {
		if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return "unknown"
}
