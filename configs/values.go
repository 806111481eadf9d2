package configs

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"tapsec/sa"
)

// parsers read types that cannot read themselves, or whose errors say too little.
var parsers = map[reflect.Type]func(string, reflect.Value) error{
	reflect.TypeFor[sa.Profile]():    parser(sa.ProfileByName),
	reflect.TypeFor[netip.Addr]():    parser(parseAddr),
	reflect.TypeFor[netip.Prefix]():  parser(parsePrefix),
	reflect.TypeFor[time.Duration](): parser(parseDuration),
	reflect.TypeFor[uint8]():         parser(parseIPProtocol), // only selectors have one
}

func parser[T any](parse func(string) (T, error)) func(string, reflect.Value) error {
	return func(text string, v reflect.Value) error {
		t, err := parse(text)
		if err == nil {
			v.Set(reflect.ValueOf(t))
		}
		return err
	}
}

func parseAddr(text string) (netip.Addr, error) {
	a, err := netip.ParseAddr(text)
	if err != nil || a.Zone() != "" || a.Is4In6() {
		return a, fmt.Errorf("expected an IPv4 or IPv6 address without a zone, found %s", sa.Quote(text))
	}
	return a, nil
}

func parsePrefix(text string) (netip.Prefix, error) {
	if a, err := parseAddr(text); err == nil {
		return netip.PrefixFrom(a, a.BitLen()), nil
	}
	p, err := netip.ParsePrefix(text)
	if err != nil || p.Addr().Is4In6() {
		return p, fmt.Errorf("expected a prefix like 192.0.2.0/24 or an address, found %s", sa.Quote(text))
	}
	return p.Masked(), nil
}

func parseDuration(text string) (time.Duration, error) {
	t, err := time.ParseDuration(text)
	if err != nil || t < 0 {
		return 0, fmt.Errorf("expected a time like 30s or 8h, found %s", sa.Quote(text))
	}
	return t, nil
}

func parseIPProtocol(text string) (uint8, error) {
	names := map[string]uint8{"any": 0, "icmp": 1, "tcp": 6, "udp": 17, "icmpv6": 58, "sctp": 132}
	if p, ok := names[strings.ToLower(text)]; ok {
		return p, nil
	}
	p, err := strconv.ParseUint(text, 0, 8)
	if err != nil {
		return 0, fmt.Errorf("expected tcp, udp, icmp, icmpv6, sctp, any or a number up to 255, found %s", sa.Quote(text))
	}
	return uint8(p), nil
}

// key reads a key, or the file that holds it. Its errors never say what was found.
func (d *decoder) key(n *yaml.Node, v reflect.Value, path string) {
	if n.Kind != yaml.ScalarNode || isNothing(n) {
		d.say(n, path, "expected a key as 0x and hexadecimal digits, or file:PATH")
		return
	}
	text := n.Value
	if name, ok := strings.CutPrefix(text, "file:"); ok {
		var err error
		if text, err = d.keyFile(name); err != nil {
			d.say(n, path, "%v", err)
			return
		}
	}
	k, err := sa.ParseKey(strings.TrimSpace(text))
	if err != nil {
		d.say(n, path, "%v", err)
		return
	}
	if k.Redacted() { // as some test vectors have it
		d.warn(path, "the key is all zeros; a kernel under lockdown shows keys so (kernel_lockdown(7))")
	}
	v.Set(reflect.ValueOf(k))
}

const maxKeyFile = 4096

// keyFile reads a key file, which nobody else may be able to read.
func (d *decoder) keyFile(name string) (string, error) {
	if d.noKeyFiles {
		return "", errors.New("expected the key itself: this text may name no files")
	}
	if !filepath.IsAbs(name) {
		name = filepath.Join(filepath.Dir(d.file), name)
	}
	st, err := os.Stat(name)
	switch {
	case err != nil:
		return "", fmt.Errorf("key file %s: %w", sa.Quote(name), reason(err))
	case !st.Mode().IsRegular() || st.Size() > maxKeyFile:
		return "", fmt.Errorf("key file %s: expected a file of at most %d bytes with hexadecimal digits", sa.Quote(name), maxKeyFile)
	case st.Mode()&0o066 != 0 && !d.insecureKeyFiles:
		return "", fmt.Errorf("key file %s is open to others (mode %04o): chmod 600 it, or say insecure_key_files: true", sa.Quote(name), st.Mode().Perm())
	}
	d.keyFiles = append(d.keyFiles, strings.Clone(name))
	b, err := os.ReadFile(name)
	if err != nil {
		return "", fmt.Errorf("key file %s: %w", sa.Quote(name), reason(err))
	}
	return string(b), nil
}

// reason is an error without the path, which may be a key.
func reason(err error) error {
	var path *fs.PathError
	if errors.As(err, &path) {
		return path.Err
	}
	return err
}
