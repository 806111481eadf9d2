package configs

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"go.yaml.in/yaml/v3"
)

// The schema takes every sample, and none of the mistakes that an editor is to
// show.
func TestSchema(t *testing.T) {
	text, err := Schema()
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	if err := c.AddResource("tapsec.json", parsed); err != nil {
		t.Fatal(err)
	}
	schema, err := c.Compile("tapsec.json")
	if err != nil {
		t.Fatal(err)
	}
	check := func(text string) error {
		var v any
		if err := yaml.Unmarshal([]byte(text), &v); err != nil {
			t.Fatal(err)
		}
		return schema.Validate(v)
	}
	samples, _ := filepath.Glob("*.yaml")
	for _, name := range samples {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if err := check(string(text)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if err := check(strings.Replace(string(text), "spi:", "sip:", 1)); err == nil {
			t.Errorf("%s: a field that there is not is taken", name)
		}
	}
	for _, wrong := range []string{"profile: fast", "queues: many", "wire: wire0", "sas: [{mode: beet}]", "sas: [{encryption_key: secret}]",
		"policy: [{action: allow}]", "on_failure: mirror", "host: {form: whole}", "offload: {active: perhaps}"} {
		if check(wrong) == nil {
			t.Errorf("%s is taken", wrong)
		}
	}
}
