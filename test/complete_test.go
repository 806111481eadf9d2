package test

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"tapsec/internal/lab/rig"
	"tapsec/test/program"
	"tapsec/test/testkit"
)

// TestCompletion asks as a shell does what may follow, of a running appliance and of the
// machine.
func TestCompletion(t *testing.T) {
	rig.Require(t)
	socket := filepath.Join(sockets(t), "nic")
	start(t, write(t, moreSAs), "--wire", "cm0", "--host", "cmh0", "--control", socket)
	testkit.NewStack(t, "completed")
	for _, c := range []struct{ typed, offers string }{
		{"sa show --control " + socket + " |", "web"},
		{"sa delete --control " + socket + " |", "web"},
		{"sa update --high 1 --control " + socket + " |", "web"},
		{"sa show --control " + socket + " web |", ""},
		{"sa show --control /nowhere |", ""},
		{"counters --control " + socket + " --sa |", "web"},
		{"run --wire-netns |", "completed"},
		{"run --host-netns |", "completed"},
		{"transport --stack-netns |", "completed"},
		{"run --engine |", "plain"},
		{"rig up --profile |", "mlx5-crypto"},
		{"conformance --setup |", "layers"},
		{"conformance --setup layers,|", "layers,vectors-01"},
		{"run --form |", "decap"},
		{"run --fo|", "--form"},
	} {
		args := strings.Split("__complete "+strings.ReplaceAll(c.typed, " |", " "), " ")
		args[len(args)-1] = strings.TrimSuffix(args[len(args)-1], "|")
		text, err := program.Command(args...).Output()
		lines := strings.Split(strings.TrimSpace(string(text)), "\n")
		var names []string
		for _, line := range lines[:len(lines)-1] {
			name, _, _ := strings.Cut(line, "\t")
			names = append(names, name)
		}
		if strings.Contains(string(text), "`") {
			t.Errorf("%s: a shell would show quotes in\n%s", c.typed, text)
		}
		if err != nil || lines[len(lines)-1] != ":4" || c.offers != "" && !slices.Contains(names, c.offers) || c.offers == "" && len(names) > 0 {
			t.Errorf("%s: %v, expected %q in\n%s", c.typed, err, c.offers, text)
		}
	}
}
