package configs

import (
	"io"

	"tapsec/internal/files"
	"tapsec/keys"
)

// LoadInput is Load for what is read once, which may be standard input.
func LoadInput(path string, stdin io.Reader) (*Config, error) {
	if path != "-" {
		return Load(path)
	}
	text, err := files.Read(path, stdin)
	if err != nil {
		return nil, err
	}
	return Read(files.Name(path), text)
}

// LoadKeys is ParseKeys for files, one or several; - is standard input.
func LoadKeys(paths []string, stdin io.Reader) (all *Config, err error) {
	for _, path := range paths {
		text, err := files.Read(path, stdin)
		if err != nil {
			return nil, err
		}
		c, err := ParseKeys(files.Name(path), text)
		if err != nil {
			return nil, err
		}
		c.Files = append(c.Files, path)
		if keys.Detect(text) == keys.Charon {
			c.Logs = append(c.Logs, path)
		}
		if all == nil {
			all = c
		} else if err := all.Take(c); err != nil {
			return nil, err
		}
	}
	return all, nil
}
