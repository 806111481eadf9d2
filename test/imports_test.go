package test

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
	"wire": {}, "sa": {}, "status": {}, "tap": {}, "rig": {}, "vector": {},

	"fragment": {"wire"},

	"mac":     {"sa"},
	"esp":     {"sa", "status", "mac"},
	"ah":      {"sa", "status", "wire", "mac"},
	"keys":    {"sa"},
	"capture": {"status", "wire"},

	"seal":     {"wire", "sa", "esp", "ah"},
	"pipeline": {"wire", "sa", "esp", "ah", "status"},
	"configs":  {"sa", "esp", "ah", "keys"},
	"nic":      {"tap", "status"},

	"transport": {"wire", "sa", "status", "fragment"},
	"outbound":  {"wire", "sa", "seal"},
	"control":   {"sa", "status", "configs"},

	"bench":       {"tap", "nic", "pipeline", "sa", "seal", "status", "rig"},
	"conformance": {"sa", "seal", "status", "wire", "configs", "keys", "vector"},

	"cli":  {"*"},
	"main": {"cli"},
}

// mayUse says which packages may use which of these modules on the frame path
// or for the kernel's interfaces; others of the module's dependencies are free.
var mayUse = map[string][]string{
	"github.com/songgao/water":       {"tap", "bench"},
	"github.com/cilium/ebpf":         {"tap"},
	"github.com/vishvananda/netlink": {"rig"},
	"github.com/google/gopacket":     {"capture"},
	"github.com/spf13/cobra":         {"cli"},
	"go.yaml.in/yaml/v3":             {"configs"},
}

// Who may import whom holds for all packages, tests left out.
func TestImports(t *testing.T) {
	for name, imports := range listPackages(t) {
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
				if (i == module || strings.HasPrefix(i, module+"/")) && !slices.Contains(users, name) {
					t.Errorf("%s imports %s, which is for %v", name, i, users)
				}
			}
		}
	}
}

func listPackages(t *testing.T) map[string][]string {
	t.Helper()
	cmd := exec.Command("go", "list", "-json=ImportPath,Imports", "./...")
	cmd.Dir = ".."
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
