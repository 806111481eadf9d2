package house

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// mayImport says which packages of the house each one may import
// (docs/decisions/0001-house.md). What is not in the table may import nothing.
var mayImport = map[string][]string{
	"wire": {}, "internal/reason": {}, "internal/netns": {}, "internal/confine": {}, "internal/notify": {}, "internal/lab/vector": {},
	"internal/logging": {}, "internal/serve": {"sa"}, "internal/audit": {}, "internal/wrap": {}, "internal/files": {"internal/wrap"}, "internal/exit": {}, "internal/near": {},

	"sa":                {"wire"},
	"internal/segment":  {"wire"},
	"internal/console":  {"internal/files", "sa"},
	"tap":               {"internal/segment"},
	"status":            {"internal/reason"},
	"internal/fragment": {"wire"},
	"internal/lab/rig":  {"internal/netns", "internal/segment"},
	"internal/mac":      {"sa"},
	"internal/replay":   {"sa"},
	"internal/ledger":   {"sa", "internal/replay"},

	"esp":     {"sa", "status", "internal/mac"},
	"ah":      {"sa", "status", "wire", "internal/mac"},
	"keys":    {"sa"},
	"capture": {"status", "internal/wrap"},

	"pipeline": {"wire", "sa", "esp", "ah", "status"},

	"internal/lab/forge": {"wire", "sa", "esp", "ah", "status"},

	"configs":      {"sa", "keys", "internal/files", "internal/near", "internal/wrap"},
	"internal/nic": {"tap"},

	"internal/diagnosis": {"wire", "sa", "status", "ah", "pipeline", "internal/mac", "internal/account"},

	"transport":         {"wire", "sa", "status", "internal/fragment", "internal/replay", "internal/ledger", "internal/reason", "internal/audit"},
	"internal/outbound": {"wire", "sa", "esp", "ah", "internal/ledger", "internal/reason", "internal/audit"},
	"control":           {"sa", "keys", "internal/wrap"},
	"internal/event":    {"control"},
	"internal/control":  {"sa", "keys", "configs", "control", "internal/event", "internal/serve"},

	"internal/metrics": {"control", "internal/serve"},
	"internal/mirror":  {"sa", "keys", "internal/audit"},
	"internal/shadow":  {"sa", "status", "tap", "keys", "pipeline", "internal/replay", "internal/mirror", "internal/netns", "internal/wrap"},
	"internal/secrets": {"capture", "configs", "keys", "sa"},

	"appliance": {"configs", "sa", "status", "tap", "pipeline", "transport", "internal/nic", "internal/netns", "control", "internal/control", "internal/metrics",
		"internal/confine", "internal/event", "internal/live", "internal/mirror", "internal/wrap", "keys",
		"internal/fragment", "internal/outbound", "internal/ledger", "internal/replay", "internal/audit", "wire"},

	"internal/account": {"sa", "status", "wire", "pipeline", "internal/replay"},
	"internal/inspect": {"capture", "configs", "pipeline", "sa", "status", "wire", "internal/account",
		"internal/diagnosis", "internal/files", "internal/near", "internal/wrap"},
	"internal/live":      {"capture", "pipeline", "sa", "status", "wire", "internal/explain", "internal/inspect", "internal/serve"},
	"internal/dump":      {"capture", "sa", "internal/files"},
	"internal/dissector": {"status"},
	"internal/report":    {"status", "internal/account", "internal/explain", "internal/inspect", "internal/page"},
	"internal/page":      {},
	"internal/web/build": {"internal/page"},
	"docs/reasons":       {"status", "transport", "internal/outbound"},
	"internal/explain": {"capture", "configs", "pipeline", "sa", "status", "wire", "internal/account",
		"internal/diagnosis", "internal/wrap"},

	"internal/lab/bench": {"appliance", "capture", "configs", "keys", "internal/inspect", "internal/netns", "tap", "internal/nic", "pipeline",
		"sa", "internal/outbound", "status", "transport", "internal/lab/forge", "internal/lab/hosts", "internal/lab/rig", "internal/wrap"},
	"internal/lab/testbed": {"appliance", "configs", "internal/nic", "pipeline", "status", "internal/lab/rig",
		"internal/lab/conformance", "internal/wrap"},
	"internal/lab/hosts": {"appliance", "configs", "internal/netns", "sa", "internal/outbound", "status", "transport", "tap",
		"internal/lab/forge", "internal/lab/rig", "internal/wrap"},
	"internal/lab/conformance": {"sa", "internal/outbound", "status", "wire", "configs", "keys",
		"internal/lab/forge", "internal/lab/vector", "internal/wrap", "internal/page"},

	"internal/daemon": {"appliance", "configs", "sa", "tap", "internal/console", "internal/exit", "internal/files", "internal/logging", "internal/notify"},
	"internal/review": {"appliance", "capture", "configs", "internal/console", "internal/exit", "internal/explain", "internal/files", "internal/inspect",
		"internal/report", "internal/secrets", "wire"},
	"internal/top":    {"control", "internal/event", "internal/outbound", "internal/wrap", "status", "transport"},
	"internal/doctor": {"esp", "internal/confine", "internal/lab/rig", "internal/wrap", "status", "tap"},
	"internal/cli":    {"*"},
	"main":            {"internal/cli"},
}

// mayUse says which packages may use which of these modules on the frame path
// or for the kernel's interfaces; others of the module's dependencies are free.
var mayUse = map[string][]string{
	"github.com/songgao/water":            {"tap", "internal/lab/bench"},
	"github.com/cilium/ebpf":              {"tap"},
	"github.com/vishvananda/netlink":      {"internal/netns", "internal/lab/rig", "internal/mirror"},
	"github.com/google/gopacket":          {"capture"},
	"github.com/klauspost/compress":       {"capture"},
	"github.com/pierrec/lz4/v4":           {"capture"},
	"github.com/prometheus/client_golang": {"internal/metrics"},
	"github.com/spf13/cobra":              {"internal/cli"},
	"github.com/gdamore/tcell/v3":         {"internal/top"},
	"github.com/tmaxmax/go-sse":           {"control", "internal/control"},
	"go.yaml.in/yaml/v3":                  {"configs"},

	"github.com/landlock-lsm/go-landlock":           {"internal/confine"},
	"github.com/elastic/go-seccomp-bpf":             {"internal/confine"},
	"kernel.org/pub/linux/libs/security/libcap/cap": {"internal/confine"},
}

// Who may import whom holds for all packages, tests left out, and so does who
// uses which library. A permission that nobody uses is taken back.
func TestImports(t *testing.T) {
	packages := listPackages(t)
	for name, imports := range packages {
		allowed, known := mayImport[name]
		if name == "test" || strings.HasPrefix(name, "test/") {
			allowed = []string{"*"}
		} else if !known {
			t.Errorf("package %s is not in the table: say what it may import", name)
		}
		for _, i := range imports {
			house, ok := strings.CutPrefix(i, "tapsec/")
			if ok && !slices.Contains(allowed, "*") && !slices.Contains(allowed, house) {
				t.Errorf("%s imports %s, which the table does not allow", name, house)
			}
			for module, users := range mayUse {
				if within(i, module) && !slices.Contains(users, name) {
					t.Errorf("%s imports %s, which is for %v", name, i, users)
				}
			}
		}
	}
	for name, allowed := range mayImport {
		for _, house := range allowed {
			if house != "*" && !slices.Contains(packages[name], "tapsec/"+house) {
				t.Errorf("the table allows %s to import %s, which it does not", name, house)
			}
		}
	}
	for module, users := range mayUse {
		for _, name := range users {
			if !slices.ContainsFunc(packages[name], func(i string) bool { return within(i, module) }) {
				t.Errorf("the table allows %s to use %s, which it does not", name, module)
			}
		}
	}
}

// within reports whether a package belongs to a module.
func within(path, module string) bool { return path == module || strings.HasPrefix(path, module+"/") }

func listPackages(t *testing.T) map[string][]string {
	t.Helper()
	cmd := exec.Command("go", "list", "-json=ImportPath,Imports", "./...")
	cmd.Dir = "../.."
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	all := map[string][]string{}
	for d := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p struct {
			ImportPath string
			Imports    []string
		}
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			return all
		} else if err != nil {
			t.Fatal(err)
		}
		name, _ := strings.CutPrefix(p.ImportPath, "tapsec/")
		if p.ImportPath == "tapsec" {
			name = "main"
		}
		all[name] = p.Imports
	}
}
