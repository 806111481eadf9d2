package cli

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"tapsec/internal/doctor"
	"tapsec/internal/exit"
)

// TestDoctor: exit code and state follow what was found.
func TestDoctor(t *testing.T) {
	good := doctor.Diagnosis{Run: true, Demo: true, Engine: "plain", Findings: []doctor.Finding{
		{Name: "tun device", Met: true, Needed: true, Detail: "There."},
		{Name: "bridge MTU", Detail: "Small.", Remedy: "Raise it."},
	}}
	bad := good
	bad.Run = false
	bad.Findings = []doctor.Finding{{Name: "tun device", Needed: true, Detail: "Absent.", Remedy: "Load it."}}
	for _, c := range []struct {
		doctor.Diagnosis
		code int
		want []string
	}{
		{good, exit.OK, []string{"tun device  yes", "bridge MTU  note", "Do: Raise it."}},
		{bad, exit.Machine, []string{"tun device  NO", "Do: Load it.", "needs the tun device"}},
	} {
		var table, object bytes.Buffer
		if code := exitCode(diagnosed(c.Diagnosis)); code != c.code {
			t.Errorf("exit code %d, want %d", code, c.code)
		}
		if err := errors.Join(show(&table, false, c.Diagnosis), show(&object, true, c.Diagnosis)); err != nil {
			t.Fatal(err)
		}
		for _, want := range c.want {
			if !strings.Contains(table.String(), want) {
				t.Errorf("no %q in\n%s", want, table.String())
			}
		}
		var back doctor.Diagnosis
		if err := json.Unmarshal(object.Bytes(), &back); err != nil || back.Run != c.Run || len(back.Findings) != len(c.Findings) {
			t.Errorf("%v, %s", err, object.Bytes())
		}
	}
}
