package configs

import (
	"path/filepath"
	"testing"
)

func TestSamplesLoad(t *testing.T) {
	samples, _ := filepath.Glob("*.yaml")
	if len(samples) < 5 {
		t.Fatalf("found only the samples %v", samples)
	}
	for _, name := range samples {
		c, err := Load(name)
		if err != nil {
			t.Errorf("%v", err)
			continue
		}
		if err := c.Live(); err != nil {
			t.Errorf("%s cannot run: %v", name, err)
		}
		if len(c.Bundles()) == 0 {
			t.Errorf("%s: nothing is offloaded", name)
		}
		for _, w := range c.Warnings {
			if name != "legacy.yaml" {
				t.Errorf("a sample with a warning: %v", w)
			}
			t.Log(w)
		}
	}
}
