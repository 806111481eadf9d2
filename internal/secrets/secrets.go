// Package secrets puts SAs into a capture, which can then be judged without any other file
// (docs/secrets.md). It writes and reads the contents of Decryption Secrets Blocks; package
// capture knows where these stand. No error holds a key.
package secrets

import (
	"bytes"
	"fmt"
	"slices"

	"tapsec/capture"
	"tapsec/configs"
	"tapsec/keys"
	"tapsec/sa"
)

// Of returns what a capture is to carry: all SAs as a configuration, and for Wireshark those
// that its own type of secrets can hold, unless the capture has such secrets already.
func Of(sas []*sa.SA, has []capture.Secret) ([]capture.Secret, error) {
	var text bytes.Buffer
	if err := keys.WriteYAML(&text, sas); err != nil {
		return nil, err
	}
	all := []capture.Secret{{Type: capture.SecretSAs, Data: text.Bytes()}}
	rows := keys.ESPSecrets(sas)
	if len(rows) > 0 && !slices.ContainsFunc(has, othersESP) {
		all = append(all, capture.Secret{Type: capture.SecretESP, Data: append([]byte(capture.OwnRows), rows...)})
	}
	if n := text.Len() + len(rows); n > capture.MaxSecrets/2 {
		return nil, fmt.Errorf("%d SAs take %d bytes, and a capture carries at most %d; give those that it needs", len(sas), n, capture.MaxSecrets/2)
	}
	return all, nil
}

func othersESP(s capture.Secret) bool { return s.Type == capture.SecretESP && !s.Own() }

// Exchange returns a configuration, if c is nil that of the SAs which the capture carries (nil if
// it has none), and withKeys the secrets that a copy of it has to carry. The name stands in
// messages.
func Exchange(frames *capture.Reader, name string, c *configs.Config, withKeys bool) (_ *configs.Config, carried []capture.Secret, err error) {
	var has []capture.Secret
	if c == nil || withKeys {
		if has, err = frames.Secrets(); err != nil {
			return nil, nil, fmt.Errorf("%s: %w", name, err)
		}
	}
	if c == nil {
		c, err = Config(name, has)
	}
	if err == nil && c != nil && withKeys {
		carried, err = Of(c.SAs, has)
	}
	return c, carried, err
}

// Config makes a configuration of the SAs that a capture carries; nil if it has none. Our own
// type of secret says everything, so the others count only without it. Only the SAs are
// taken, and no key file is opened, since the capture may be somebody else's. The name stands
// in messages.
func Config(name string, found []capture.Secret) (all *configs.Config, err error) {
	for _, kind := range []struct {
		of    uint32
		parse func(string, []byte) (*configs.Config, error)
	}{{capture.SecretSAs, configs.ParseForeign}, {capture.SecretESP, parseTable}} {
		for _, s := range found {
			if s.Type != kind.of || len(s.Data) == 0 {
				continue
			}
			c, err := kind.parse(name+", secrets", s.Data)
			if err != nil {
				return nil, err
			}
			if all == nil {
				all = configs.Default()
				all.Host.MTU = all.Wire.MTU
			}
			if err := all.Take(c); err != nil {
				return nil, fmt.Errorf("%s, secrets: %w", name, err)
			}
		}
		if all != nil {
			return all, nil
		}
	}
	return nil, nil
}

// parseTable reads rows of the table esp_sa, and no other form.
func parseTable(name string, data []byte) (*configs.Config, error) {
	if form := keys.Detect(data); form != keys.ESPSA {
		return nil, fmt.Errorf("%s: expected rows of the table %s", name, keys.ESPSA)
	}
	return configs.ParseKeys(name, data)
}
