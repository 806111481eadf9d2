// Package secrets has SAs travel inside a capture: one file that needs no other one
// to be judged (docs/secrets.md). It writes and reads the contents of Decryption
// Secrets Blocks; where these stand is capture's business. No error of it holds a key.
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

// Of gives what a capture is to carry: all SAs as a configuration, and for Wireshark
// those that its own type of secrets can hold, unless the capture has such already.
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

// Config makes a configuration of the SAs that a capture carries; nil where it has
// none. Those of our own type say all, so that the others only count without them.
// Of a configuration from elsewhere nothing but the SAs is taken, and it opens no
// files. The name stands in messages.
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

// parseTable reads the rows of a table and nothing else.
func parseTable(name string, data []byte) (*configs.Config, error) {
	if form := keys.Detect(data); form != keys.ESPSA {
		return nil, fmt.Errorf("%s: expected rows of the table %s", name, keys.ESPSA)
	}
	return configs.ParseKeys(name, data)
}
