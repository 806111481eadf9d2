package configs

import (
	"bytes"
	"encoding/json"
	"errors"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"go.yaml.in/yaml/v3"
)

// numbered is a document as those read it to whom hexadecimal digits without quotes are a number however many
// they are, as in YAML 1.1 and 1.2: editors, and PyYAML.
func numbered(v any) any {
	switch v := v.(type) {
	case map[string]any:
		for name := range v {
			v[name] = numbered(v[name])
		}
	case []any:
		for i := range v {
			v[i] = numbered(v[i])
		}
	case string:
		if n, ok := new(big.Int).SetString(v, 0); ok && strings.HasPrefix(v, "0x") {
			return json.Number(n.String())
		}
	}
	return v
}

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
		return errors.Join(schema.Validate(v), schema.Validate(numbered(v)))
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
	if err := check("sas: [{suite: null}]"); err != nil { // as keys prints a cipher that encrypts nothing
		t.Error(err)
	}
	for _, wrong := range []string{"profile: fast", "queues: many", "wire: wire0", "sas: [{mode: beet}]", "sas: [{encryption_key: secret}]", "sas: [{encryption_key: '0xaa:bb'}]", "sas: [{encryption_key: '0xaab'}]",
		"policy: [{action: allow}]", "on_failure: mirror", "host: {form: whole}", "offload: {active: perhaps}"} {
		if check(wrong) == nil {
			t.Errorf("%s is taken", wrong)
		}
	}
}
