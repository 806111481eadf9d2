package configs

import (
	"crypto/rand"
	"embed"
	"encoding/hex"
	"regexp"
	"strings"

	"tapsec/sa"
)

//go:embed rig.yaml rig-clear.yaml
var rigSamples embed.FS

var keyDigits = regexp.MustCompile(`(_key: 0x)[0-9a-f]+`)

// Rig is the configuration of `tapsec rig` for both hosts, with fresh keys. Without answers only what
// host a sends is protected.
func Rig(profile sa.Profile, answers bool) []byte {
	name := "rig.yaml"
	if !answers {
		name = "rig-clear.yaml"
	}
	sample, err := rigSamples.ReadFile(name)
	if err != nil {
		panic("configs: " + err.Error())
	}
	line := "profile: " + profile.Name
	if profile.Legacy {
		line += "\nallow_legacy: true"
	}
	text := strings.Replace(string(sample), "profile: full", line, 1)
	return []byte(keyDigits.ReplaceAllStringFunc(text, func(field string) string {
		digits := strings.Index(field, "0x") + 2
		key := make([]byte, (len(field)-digits)/2)
		rand.Read(key) // never fails
		return field[:digits] + hex.EncodeToString(key)
	}))
}
