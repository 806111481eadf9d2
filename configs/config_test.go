package configs

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"tapsec/keys"
	"tapsec/sa"
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
		}
	}
}

// Everything that the commented sample says arrives.
func TestExample(t *testing.T) {
	c, err := Load("example.yaml")
	if err != nil {
		t.Fatal(err)
	}
	b := c.Bundles()
	if len(b) != 3 || len(b[0]) != 1 || len(b[2]) != 2 || b[2][0].Protocol != sa.AH || b[2][1].Protocol != sa.ESP {
		t.Fatalf("expected two SAs and a bundle, AH first, found %v", b)
	}
	web := b[1][0]
	if web.Window != 128 || !web.PadCheck || web.Lifetimes.Soft.Time != 7*time.Hour || web.Lifetimes.Hard.Packets != 0xffffffff {
		t.Errorf("web is %+v", *web)
	}
	if s := web.Selector; s == nil || s.Dst.String() != "198.51.100.10/32" || s.Protocol != 6 || s.DstPorts != (sa.Ports{First: 443, Last: 443}) {
		t.Errorf("the selector of web is %+v", s)
	}
	site := b[0][0]
	if site.SPI != 0xc001 || site.Src.String() != "192.0.2.1" || site.Suite.Name != "aes128gcm16" || site.Window != 64 || site.EncryptionKey.Len() != 20 {
		t.Errorf("site-a is %+v", *site)
	}
	if len(c.Policy) != 3 || c.Policy[0].Action != sa.Protect || c.Policy[0].SA != "web" || len(c.Local) != 2 {
		t.Errorf("policy %+v, local %v", c.Policy, c.Local)
	}
	if c.Host.Name != "host0" || c.Wire.MTU+c.Host.MTU != 0 || c.Host.Form != InPlace || c.Host.Annotate != Trailer || c.Queues != 1 || !c.Offload.Active || !c.Offload.AH || !c.Offload.ESP {
		t.Errorf("host %+v, queues %d, offload %+v", c.Host, c.Queues, c.Offload)
	}
}

func TestFieldsArrive(t *testing.T) {
	c, err := Load("esn.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if s := c.SAs[1]; !s.ESN || s.Seq != 3<<32|0xfffffff0 || s.Bitmap.String() != "0xf7" || c.SAs[0].Seq != 0 {
		t.Errorf("ESN fields: %+v", s)
	}
	// seq_low, with seq_high, is the number of either direction.
	old, err := Parse("x", []byte(replace("mode:", "esn: true\n    seq_high: 3\n    seq_low: 4\n    mode:")))
	if err != nil || old.SAs[0].Seq != 3<<32|4 || old.SAs[0].OSeq != 3<<32|4 {
		t.Errorf("seq_high and seq_low: %+v, %v", old.SAs[0], err)
	}
	old, err = Parse("x", []byte(replace("mode:", "direction: out\n    seq_low: 4\n    mode:")))
	if err != nil || old.SAs[0].Seq != 0 || old.SAs[0].OSeq != 4 {
		t.Errorf("seq_low, outbound: %+v, %v", old.SAs[0], err)
	}
	if c, err = Load("natt.yaml"); err != nil || !c.SAs[0].Encap {
		t.Errorf("encap: %v", err)
	}
	c, err = Parse("x", []byte("offload: {active: false, ah: true, esp: false}\nprofile: ixgbe-82599\nsa_capacity: 5\n"+
		"wire: {name: a, netns: blue, mtu: 9000}\nhost: {name: b, form: decap, annotate: none}\nqueues: 4\n"))
	if err != nil {
		t.Fatal(err)
	}
	if c.Offload != (Switches{false, true, false}) || c.Profile.Name != "ixgbe-82599" || c.Capacity() != 5 ||
		c.Wire != (Interface{"a", 9000, "blue", false}) || c.Host != (Host{Interface{"b", 0, "", false}, Decap, None}) || c.Queues != 4 {
		t.Errorf("found %+v", c)
	}
	// A JSON document is a YAML one; its keys are quoted.
	c, err = Parse("x", []byte(`{"sas": [{"name": "j", "spi": "0x1234", "protocol": "esp", "mode": "tunnel", "dst": "::1",
		"suite": "null-md5", "integrity_key": "000102030405060708090a0b0c0d0e0f"}], "allow_legacy": true}`))
	if err != nil || c.SAs[0].SPI != 0x1234 || c.SAs[0].IntegrityKey.Len() != 16 {
		t.Errorf("JSON: %v", err)
	}
}

const (
	key20 = "0x000102030405060708090a0b0c0d0e0fa1a2a3a4"
	good  = "sas:\n  - name: one\n    spi: 0xc001\n    dst: 192.0.2.2\n    protocol: esp\n    mode: tunnel\n    suite: aes128gcm16\n    encryption_key: " + key20 + "\n"
	ah    = "  - name: two\n    spi: 0xc002\n    dst: 192.0.2.2\n    protocol: ah\n    mode: tunnel\n    suite: aesxcbc\n    integrity_key: 0x000102030405060708090a0b0c0d0e0f\n"
)

// replace changes the good configuration.
func replace(old, new string) string {
	if !strings.Contains(good+ah, old) {
		panic(old + " is not in the good configuration")
	}
	return strings.Replace(good+ah, old, new, 1)
}

// Each row changes a good configuration into one with the mistakes listed, as
// LINE:COL FIELD and a part of the message. There are no others.
var mistakes = map[string]struct {
	text string
	want []string
}{
	"unknown field":    {replace("suite:", "siute:"), []string{"7:5 sas[0].siute: did you mean suite?", "2:5 sas[0].suite: is missing"}},
	"capital field":    {replace("suite:", "SUITE:"), []string{"7:5 sas[0].SUITE: did you mean suite?", "2:5 sas[0].suite: is missing"}},
	"far field":        {good + "base: 1\n", []string{"9:1 base: there is no such field; there are allow_legacy"}},
	"control":          {replace("tunnel", "tun\x00nel"), []string{"6:14 : found the control character U+0000; mend this line"}},
	"escape":           {good + "# ü\x1b[31m\n", []string{"9:4 : found the control character U+001B"}},
	"no UTF-8":         {replace("one", "f\xfcr"), []string{"2:12 : found a byte that is no UTF-8; save the text as UTF-8"}},
	"unknown top":      {good + "color: red\n", []string{"9:1 color: there is no such field; there are allow_legacy"}},
	"twice":            {replace("spi: 0xc001", "spi: 0xc001\n    spi: 2"), []string{"4:5 sas[0].spi: given twice, first in line 3"}},
	"wrong types":      {replace("spi: 0xc001", "spi: [1]\n    esn: maybe\n    window: {}"), []string{"3:10 sas[0].spi: expected a single value, found a list", "4:10 sas[0].esn: expected true or false, found \"maybe\"", "5:13 sas[0].window: found fields"}},
	"not a number":     {replace("0xc001", "4294967296"), []string{"3:10 sas[0].spi: expected a number from 0 to 4294967295"}},
	"spi zero":         {replace("0xc001", "0"), []string{"3:10 sas[0].spi: reserved"}},
	"address":          {replace("192.0.2.2", "192.0.2.256"), []string{"4:10 sas[0].dst: expected an IPv4 or IPv6 address"}},
	"zone":             {replace("192.0.2.2", "fe80::1%eth0"), []string{"4:10 sas[0].dst: without a zone"}},
	"mapped address":   {replace("192.0.2.2", "::ffff:192.0.2.2"), []string{"4:10 sas[0].dst: expected an IPv4 or IPv6 address"}},
	"families":         {replace("dst:", "src: 2001:db8::1\n    dst:"), []string{"4:10 sas[0].src: different IP versions"}},
	"protocol":         {replace("esp", "espp"), []string{"5:15 sas[0].protocol: expected ah or esp, found \"espp\""}},
	"no protocol":      {replace("    protocol: esp\n", ""), []string{"2:5 sas[0].protocol: is missing"}},
	"no spi":           {replace("    spi: 0xc001\n", ""), []string{"2:5 sas[0].spi: is missing"}},
	"mode":             {replace("tunnel", "beet"), []string{"6:11 sas[0].mode: expected auto, transport or tunnel, found \"beet\""}},
	"suite":            {replace("aes128gcm16", "aes129gcm16"), []string{"7:12 sas[0].suite: did you mean aes128gcm16?"}},
	"nearest suite":    {replace("aes128gcm16", "aes128gcm17"), []string{"7:12 sas[0].suite: did you mean aes128gcm16?"}},
	"no such suite":    {replace("aes128gcm16", "twofish"), []string{"7:12 sas[0].suite: expected a cipher"}},
	"legacy":           {replace("aes128gcm16", "des-md5"), []string{"7:12 sas[0].suite: allow_legacy: true", "8:21 sas[0].encryption_key: needs 8 bytes, found 20", "2:5 sas[0].integrity_key: needs 16 bytes, found 0"}},
	"no integrity":     {replace("aes128gcm16", "aes128ctr"), []string{"7:12 sas[0].suite: has no integrity"}},
	"short key":        {replace(key20, "0x0001"), []string{"8:21 sas[0].encryption_key: needs 20 bytes (its 4-byte salt last), found 2"}},
	"odd key":          {replace(key20, key20+"0"), []string{"8:21 sas[0].encryption_key: even number"}},
	"seq_high":         {replace("mode:", "seq_high: 1\n    mode:"), []string{"6:15 sas[0].seq_high: needs esn: true"}},
	"number":           {replace("mode:", "seq: 0x100000000\n    oseq: 0x10000000000000000\n    mode:"), []string{"6:10 sas[0].seq: 0x100000000 is beyond 32 bits and needs esn: true", "7:11 sas[0].oseq: expected a number from 0"}},
	"numbers":          {replace("mode:", "esn: true\n    seq_high: 3\n    seq_low: 4\n    seq: 5\n    oseq: 0x300000004\n    mode:"), []string{"9:10 sas[0].seq: 0x5 contradicts seq_high and seq_low, which say 0x300000004"}},
	"high halves":      {replace("mode:", "esn: true\n    seq_high: 3\n    seq: 5\n    oseq: 0x300000004\n    mode:"), []string{"8:10 sas[0].seq: 0x5 contradicts seq_high, 0x3"}},
	"other direction":  {replace("mode:", "direction: out\n    seq: 5\n    mode:"), []string{"7:10 sas[0].seq: means nothing where direction is out"}},
	"direction":        {replace("mode:", "direction: both\n    mode:"), []string{"6:16 sas[0].direction: expected in or out, found \"both\""}},
	"out in any mode":  {replace("mode: tunnel", "direction: out\n    mode: auto"), []string{"7:11 sas[0].mode: say transport or tunnel where direction is out"}},
	"out to anybody":   {replace("dst: 192.0.2.2", "direction: out"), []string{"2:5 sas[0].dst: is needed where direction is out"}},
	"bitmap":           {replace("mode:", "seq: 65\n    bitmap: 0x10000000000000001\n    mode:"), []string{"7:13 sas[0].bitmap: at most the 64 bits of the window, found 65"}},
	"bitmap alone":     {replace("mode:", "bitmap: 0x1\n    mode:"), []string{"6:13 sas[0].bitmap: needs seq"}},
	"bitmap without":   {replace("mode:", "seq: 9\n    bitmap: 0x2\n    mode:"), []string{"7:13 sas[0].bitmap: the lowest bit"}},
	"bitmap below 1":   {replace("mode:", "seq: 2\n    bitmap: 0x7\n    mode:"), []string{"7:13 sas[0].bitmap: has 3 bits, but there are 2 numbers"}},
	"bitmap's digits":  {replace("mode:", "seq: 2\n    bitmap: 0xfg\n    mode:"), []string{"7:13 sas[0].bitmap: expected a hexadecimal number"}},
	"encap port":       {replace("mode:", "encap: {port: 500}\n    mode:"), []string{"6:19 sas[0].encap.port: expected 4500"}},
	"encap true":       {replace("mode:", "encap: true\n    mode:"), []string{"6:12 sas[0].encap: expected fields (port), found \"true\""}},
	"encap on ah":      {good + ah + "    encap: {port: 4500}\n", []string{"16:12 sas[1].encap: never UDP-encapsulated"}},
	"window zero":      {replace("mode:", "window: 0\n    mode:"), []string{"6:13 sas[0].window: expected 32 to 65536, found 0"}},
	"same name":        {replace("two", "one"), []string{"9:11 sas[1].name: \"one\" is the name of sas[0] too"}},
	"same identity":    {good + strings.Replace(strings.TrimPrefix(good, "sas:\n"), "one", "copy", 1), []string{"10:10 sas[1].spi: sas[0] has the same"}},
	"bundle unknown":   {good + ah + "    bundle: nobody\n", []string{"16:13 sas[1].bundle: there is no SA named \"nobody\""}},
	"bundle to itself": {good + ah + "    bundle: two\n", []string{"16:13 sas[1].bundle: expected an ESP SA"}},
	"bundle on esp":    {replace("mode:", "bundle: two\n    mode:"), []string{"6:13 sas[0].bundle: belongs on the AH SA"}},
	"bundle dst":       {replace("192.0.2.2", "192.0.2.3") + "    bundle: one\n", []string{"16:13 sas[1].bundle: share dst"}},
	"bundle srcs":      {replace("dst:", "src: 192.0.2.1\n    dst:") + "    src: 192.0.2.9\n    bundle: one\n", []string{"18:13 sas[1].bundle: one of the SAs never matches"}},
	"bundle mode":      {replace("tunnel", "transport") + "    bundle: one\n", []string{"16:13 sas[1].bundle: share mode"}},
	"bundle offload":   {good + ah + "    bundle: one\n    offload: never\n", []string{"16:13 sas[1].bundle: share offload"}},
	"bundle encap":     {replace("mode:", "encap: {port: 4500}\n    mode:") + "    bundle: one\n", []string{"17:13 sas[1].bundle: UDP-encapsulated"}},
	"bundled twice":    {good + ah + "    bundle: one\n" + strings.NewReplacer("two", "three", "c002", "c003").Replace(ah) + "    bundle: one\n", []string{"24:13 sas[2].bundle: in another bundle already"}},
	"profile":          {"profile: full2\n" + good, []string{"1:10 profile: expected full, ndis-v1"}},
	"ndis-v1":          {"profile: ndis-v1\n", []string{"1:10 profile: allow_legacy: true"}},
	"beyond profile":   {"profile: mlx5-crypto\n" + good + ah, []string{"10:5 sas[1].offload: profile mlx5-crypto lacks Ah"}},
	"capacity":         {"sa_capacity: 1\n" + good + ah, []string{"10:5 sas[1].offload: the NIC holds 1 SA bundles"}},
	"a key as a list":  {replace(key20, "[0x00]"), []string{"8:21 sas[0].encryption_key: expected a key as 0x"}},
	"capacity below 0": {"sa_capacity: -1\n", []string{"1:14 sa_capacity: expected a number of SA bundles, found -1"}},
	"capacity itself":  {"profile: ixgbe-82599\nsa_capacity: 1025\n", []string{"2:14 sa_capacity: at most the 1024"}},
	"interfaces":       {"wire: {name: a/b, mtu: 67}\nhost: {name: a-name-that-is-too-long}\nqueues: 0\n", []string{"1:14 wire.name: expected an interface name", "1:24 wire.mtu: expected 68", "2:14 host.name: expected an interface name", "3:9 queues: expected 1 to 256, found 0"}},
	"MTU beyond a TAP": {"wire: {mtu: 65522}\n", []string{"1:13 wire.mtu: expected 68 to 65521, found 65522"}},
	"attach":           {"host: {attach: eth0}\n", []string{"1:16 host.attach: expected true or false"}},
	"same interface":   {"wire: {name: a}\nhost: {name: a}\n", []string{"2:14 host.name: another name than"}},
	"form":             {"host: {form: both, annotate: maybe}\n", []string{"1:14 host.form: expected inplace or decap, found \"both\"", "1:30 host.annotate: expected trailer or none"}},
	"policy":           {"policy:\n  - {match: {dst: 10.0.0.0/33}, action: bypass}\n  - {action: protect}\n  - {action: discard, sa: x}\n  - {action: protect, sa: x}\n  - {}\n  - no\n", []string{"2:19 policy[0].match.dst: expected a prefix", "4:27 policy[2].sa: belongs to action: protect", "5:27 policy[3].sa: there is no SA named \"x\"", "6:5 policy[4].action: is missing", "7:5 policy[5]: expected fields"}},
	"selector":         {replace("mode:", "selector: {protocol: tpc, ports: 5-4}\n    mode:"), []string{"6:26 sas[0].selector.protocol: expected tcp", "6:38 sas[0].selector.ports: expected a port"}},
	"lifetimes":        {replace("mode:", "lifetimes: {soft: {time: never}}\n    mode:"), []string{"6:30 sas[0].lifetimes.soft.time: expected a time like 30s"}},
	"no fields":        {"sas: [5]\n", []string{"1:7 sas[0]: expected fields"}},
	"no list":          {"sas: 5\n", []string{"1:6 sas: expected a list"}},
	"empty":            {"", []string{"1:1 : the file is empty"}},
	"two documents":    {good + "---\nsas: []\n", []string{"9:1 : one document"}},
	"tab further down": {"sas:\n  - name: x\n    spi: 1\n\tprotocol: esp\n", []string{"4:1 : expected YAML: found a tab, and only spaces may indent"}},
	"no YAML":          {"sas:\n\t- name: x\n", []string{"2:1 : expected YAML: found a tab, and only spaces may indent"}},
	"a capture":        {"\n\r\r\n\x1c\x00\x00\x00M<+\x1a", []string{"1:1 : expected YAML, found a capture"}},
	"a list":           {"- a\n", []string{"1:1 : expected fields"}},
}

func TestMistakes(t *testing.T) {
	for name, c := range mistakes {
		t.Run(name, func(t *testing.T) {
			_, err := Parse("f.yaml", []byte(c.text))
			var found Errors
			if !errors.As(err, &found) {
				t.Fatalf("expected Errors, found %v", err)
			}
			for _, want := range c.want {
				place, part, _ := strings.Cut(want, ": ")
				if !slices.ContainsFunc(found, func(p Problem) bool {
					return fmt.Sprintf("%d:%d %s", p.Line, p.Col, p.Field) == place && strings.Contains(p.Msg, part)
				}) {
					t.Errorf("expected %s", want)
				}
			}
			if len(found) != len(c.want) || t.Failed() {
				t.Errorf("expected %d mistakes, found\n%v", len(c.want), found)
			}
		})
	}
}

// TestProtocolNames: names of protocols stand for the numbers of RFC 790 and after.
func TestProtocolNames(t *testing.T) {
	for name, want := range map[string]uint8{"any": 0, "icmp": 1, "tcp": 6, "UDP": 17, "icmpv6": 58, "sctp": 132, "47": 47} {
		c, err := Parse("f.yaml", []byte("policy: [{match: {protocol: "+name+"}, action: bypass}]\n"))
		if err != nil || c.Policy[0].Match.Protocol != want {
			t.Errorf("%s: %+v, %v", name, c, err)
		}
	}
}

// TestSyntaxNamesItsLine: the line is a mistake's place, and not once more in its text.
func TestSyntaxNamesItsLine(t *testing.T) {
	_, err := Parse("f.yaml", []byte("queues: 1\nwire: [\n"))
	if err == nil || regexp.MustCompile(`line [0-9]`).MatchString(err.Error()) || !strings.HasPrefix(err.Error(), "f.yaml:") {
		t.Error(err)
	}
}

func TestWarnings(t *testing.T) {
	null := strings.NewReplacer("aes128gcm16", "null", "    encryption_key: "+key20+"\n", "", "0xc001", "200").Replace(good)
	for text, want := range map[string]string{
		null + ah + "    bundle: one\n":                                "3:10 sas[0].spi: reserved; 7:12 sas[0].suite: no integrity of its own",
		"wire: {mtu: 1500}\nhost: {mtu: 1501}\n":                       "2:13 host.mtu: above the wire's",
		"insecure_key_files: true\n":                                   "1:21 insecure_key_files: others",
		strings.Replace(good, key20, "0x"+strings.Repeat("00", 20), 1): "8:21 sas[0].encryption_key: all zeros",
		good + "    replay_off: true\n":                                "9:17 sas[0].replay_off: takes every replay",
		good + strings.NewReplacer("sas:\n", "", "one", "back", "192.0.2.2", "192.0.2.1").Replace(good):                             "15:21 sas[1].encryption_key: has the key of sas[0]",
		good + strings.NewReplacer("two", "twin", "aesxcbc", "aes128gmac", "0x000102030405060708090a0b0c0d0e0f", key20).Replace(ah): "15:20 sas[1].integrity_key: has the key of sas[0]",
		"profile: mlx5-crypto\n" + good + ah + "    offload: preferred\n":                                                           "17:14 sas[1].offload: two stays with the transport: profile mlx5-crypto lacks Ah",
		"sa_capacity: 1\n" + good + ah + "    offload: preferred\n":                                                                 "17:14 sas[1].offload: the NIC holds 1",
	} {
		c, err := Parse("f.yaml", []byte(text))
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		wants := strings.Split(want, "; ")
		if len(c.Warnings) != len(wants) {
			t.Errorf("%s: expected %s, found %v", text, want, c.Warnings)
			continue
		}
		for i, w := range c.Warnings {
			place, part, _ := strings.Cut(wants[i], ": ")
			if got := fmt.Sprintf("%d:%d %s", w.Line, w.Col, w.Field); got != place || !strings.Contains(w.Msg, part) {
				t.Errorf("expected %s, found %v", wants[i], w)
			}
		}
	}
}

// Required SAs come before preferred ones into a full NIC, and nothing is lost.
func TestPlaces(t *testing.T) {
	first := strings.Replace(good, "mode:", "offload: preferred\n    mode:", 1)
	never := strings.NewReplacer("two", "three", "c002", "c003").Replace(ah) + "    offload: never\n"
	c, err := Parse("f.yaml", []byte("sa_capacity: 1\n"+first+ah+never))
	if err != nil {
		t.Fatal(err)
	}
	nic, rest := c.Bundles(), c.Unoffloaded()
	if len(nic) != 1 || nic[0][0].Name != "two" || len(rest) != 2 || rest[0].Name != "one" || rest[1].Name != "three" {
		t.Errorf("the NIC has %v, the transport %v", nic, rest)
	}
}

func TestLive(t *testing.T) {
	c, err := Parse("f.yaml", []byte("host: {annotate: none}\n"))
	if err != nil {
		t.Fatal(err)
	}
	var found Errors
	if err := c.Live(); !errors.As(err, &found) || found[0].Line != 1 || found[0].Col != 18 || found[0].Text == "" {
		t.Errorf("found %v", err)
	}
	c.Host.Form = Decap
	if err := c.Live(); err != nil {
		t.Error(err)
	}
}

func TestKeyFiles(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string, mode os.FileMode) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(filepath.Join(dir, name), mode); err != nil {
			t.Fatal(err)
		}
	}
	write("key", key20+"\n", 0o600)
	write("open", key20, 0o640)
	write("long", strings.Repeat("00", 5000), 0o600)
	write("text", "no key", 0o600)
	load := func(file, more string) (*Config, error) {
		write("c.yaml", more+strings.Replace(good, key20, "file:"+file, 1), 0o600)
		return Load(filepath.Join(dir, "c.yaml"))
	}
	for _, file := range []string{"key", filepath.Join(dir, "key")} {
		c, err := load(file, "")
		want, _ := sa.ParseKey(key20)
		if err != nil || !c.SAs[0].EncryptionKey.Equal(want) {
			t.Errorf("%s: %v", file, err)
		}
	}
	if _, err := load("open", "insecure_key_files: true\n"); err != nil {
		t.Error(err)
	}
	for file, part := range map[string]string{
		"open": "mode 0640): chmod 600 it, or say insecure_key_files: true", "none": "no such file", "long": "at most 4096 bytes", ".": "expected a file", "text": "hexadecimal digits",
	} {
		if _, err := load(file, ""); err == nil || !strings.Contains(err.Error(), part) || !strings.Contains(err.Error(), "c.yaml:8:21") {
			t.Errorf("%s: expected %q, found %v", file, part, err)
		}
	}
}

// A line with a mistake is quoted, its key is not, wherever it stands.
func TestKeysAreNotQuoted(t *testing.T) {
	const secret = "5ec2e7c0ffee5ec2e7c0ffee5ec2e7c0ffee5ec2"
	bytewise := strings.TrimSuffix(regexp.MustCompile("..").ReplaceAllString(secret, "$0 "), " ")
	for text, quoted := range map[string]string{
		"sas: [{encryption_key: 0x" + secret + ", spii: 1}]":      "sas: [{encryption_key: <key, 20 bytes>, spii: 1}]",
		"sas: [{'integrity_key':'0x" + secret + "', spii: 1}]":    "<key, 20 bytes>",
		"sas:\n- integrity_kye: 0x" + secret:                      "- integrity_kye: <key, 20 bytes>",
		"sas:\n- spi: " + secret:                                  "- spi: <key, 20 bytes>",
		"sas:\n- encryption_key: [0x" + secret:                    "expected ',' or ']'",
		"sas:\n- encryption_key: \"0x" + secret:                   "<key, 20 bytes>",
		"sas:\n- encryption_key: " + bytewise + "\n  spi: x":      "spi: x",
		"sas:\n- encryption_key: {" + bytewise + ": 1}":           "encryption_key",
		"sas:\n- encryption_key: not hexadecimal " + secret:       "- encryption_key: <key",
		"sas:\n- encryption_key:\n    " + bytewise + "\n  spi: 0": "<key",
		"sas:\n- encryption_key: \"0x" + secret + "\n  spi: 1":    "",
		"sas:\n- encryption_key: *a" + secret:                     "",
		secret + ": 1":                                            "<key, 20 bytes>: 1",
	} {
		_, err := Parse("f.yaml", []byte(text))
		if err == nil {
			t.Errorf("%s: expected an error", text)
			continue
		}
		asJSON, _ := json.Marshal(err)
		all := err.Error() + string(asJSON)
		if strings.Contains(all, secret[:16]) || strings.Contains(all, bytewise[:20]) {
			t.Errorf("%s: the key is quoted: %v", text, err)
		}
		if !strings.Contains(err.Error(), quoted) {
			t.Errorf("%s: expected the line %q, found %v", text, quoted, err)
		}
	}
	// Neither does a configuration show keys.
	c, err := Parse("f.yaml", []byte(strings.Replace(good, key20, "0x"+secret, 1)))
	if err != nil {
		t.Fatal(err)
	}
	asJSON, err := json.Marshal(c)
	if all := fmt.Sprintf("%v %+v %#v", c, *c.SAs[0], *c.SAs[0]) + string(asJSON); err != nil || strings.Contains(all, secret) {
		t.Errorf("a configuration shows its keys (%v)", err)
	}
}

// What keys writes as a configuration is the SAs that it read.
func TestKeysWritesConfigurations(t *testing.T) {
	files, _ := filepath.Glob("../keys/testdata/*.txt")
	tables, _ := filepath.Glob("../keys/testdata/*.esp_sa")
	for _, file := range append(files, tables...) {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		from, err := ParseKeys(file, data)
		if err != nil {
			t.Fatal(err)
		}
		var b bytes.Buffer
		if err := keys.WriteYAML(&b, from.SAs); err != nil {
			t.Fatal(err)
		}
		to, err := ParseKeys("written", b.Bytes())
		if err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		if len(to.SAs) != len(from.SAs) {
			t.Fatalf("%s: %d SAs became %d", file, len(from.SAs), len(to.SAs))
		}
		for i, s := range from.SAs {
			same := s.Same(to.SAs[i])
			clone := *to.SAs[i]
			clone.EncryptionKey, clone.IntegrityKey = s.EncryptionKey, s.IntegrityKey
			if !same || !reflect.DeepEqual(*s, clone) {
				t.Errorf("%s: %+v became %+v", file, *s, clone)
			}
		}
	}
	if _, err := ParseKeys("x", []byte("hello")); !errors.Is(err, keys.ErrFormat) {
		t.Errorf("found %v", err)
	}
}

// Every field of an SA is written.
func TestKeysWritesEveryField(t *testing.T) {
	const all = `
sas:
  - {name: inner, spi: 1, dst: 192.0.2.2, protocol: esp, mode: transport, suite: "null-sha256", offload: never, direction: in,
     integrity_key: 0x000102030405060708090a0b0c0d0e0f000102030405060708090a0b0c0d0e0f}
  - {name: outer, spi: 2, src: 192.0.2.1, dst: 192.0.2.2, protocol: ah, mode: transport, suite: sha256, bundle: inner, offload: never, direction: in, reqid: 5,
     integrity_key: 0x000102030405060708090a0b0c0d0e0f000102030405060708090a0b0c0d0e0f, esn: true, seq_high: 3, seq: 0x30000004f, bitmap: 0x8000000000000001f, window: 1024,
     pad_check: false, replay_off: true, lifetimes: {soft: {time: 1h, bytes: 2, packets: 3}, hard: {time: 5s, bytes: 6, packets: 7}},
     selector: {src: 10.0.0.0/8, dst: 10.1.0.0/16, protocol: 17, src_ports: 1-9, dst_ports: 53}}
  - {name: nat, spi: 3, dst: 192.0.2.1, protocol: esp, mode: tunnel, suite: aes128gcm16, encap: {port: 4500}, direction: out, oseq: 9,
     encryption_key: 0x000102030405060708090a0b0c0d0e0f10111213}
`
	from, err := Parse("all", []byte(all))
	if err != nil {
		t.Fatal(err)
	}
	given := reflect.ValueOf(*from.SAs[1])
	for i := range given.NumField() { // so that a field to come is not forgotten here
		if name := given.Type().Field(i).Name; given.Field(i).IsZero() && !strings.HasPrefix(name, "Encap") && name != "OSeq" && name != "EncryptionKey" && name != "PadCheck" {
			t.Errorf("the sample does not set %s", name)
		}
	}
	var b bytes.Buffer
	if err := keys.WriteYAML(&b, from.SAs); err != nil {
		t.Fatal(err)
	}
	if to, err := Parse("written", b.Bytes()); err != nil || !reflect.DeepEqual(to.SAs, from.SAs) {
		t.Errorf("it became\n%s, %v", b.Bytes(), err)
	}
}

// SAs of two files stand beside each other, or are refused whole.
func TestTake(t *testing.T) {
	const head = "- {suite: aes128gcm16, protocol: esp, mode: tunnel, dst: 192.0.2.2, encryption_key: 0x000102030405060708090a0b0c0d0e0f10111213"
	parse := func(rest string) *Config {
		c, err := Parse("x", []byte("sas:\n"+head+rest))
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	for rest, fits := range map[string]bool{
		", name: b, spi: 2}": true, ", name: a, spi: 2}": false, ", name: b, spi: 1}": false, ", name: b, spi: 1, src: 192.0.2.1}": true,
		", name: b, spi: 2}\n" + head + ", name: a, spi: 3}": false,
	} {
		c := parse(", name: a, spi: 1}")
		err := c.Take(parse(rest))
		if want := map[bool]int{true: 2, false: 1}[fits]; (err == nil) != fits || len(c.SAs) != want {
			t.Errorf("%s: %v, %d SAs", rest, err, len(c.SAs))
		}
	}
}

// A file in another tool's form is called what it is.
func TestLoadSaysWhatItIs(t *testing.T) {
	for file, form := range map[string]string{"modes.txt": "xfrm", "wireshark.esp_sa": "esp_sa"} {
		if _, err := Load("../keys/testdata/" + file); err == nil || !strings.Contains(err.Error(), "form "+form) || !strings.Contains(err.Error(), "-k") {
			t.Errorf("%s: %v", file, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	const secret = "5ec2e7c0ffee5ec2e7c0ffee5ec2e7c0ffee5ec2"
	samples, _ := filepath.Glob("*.yaml")
	inline := regexp.MustCompile(`0x[0-9a-f]{20,}`)
	for _, name := range samples {
		data, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(inline.ReplaceAll(data, []byte("0x"+secret)))
	}
	f.Add([]byte("sas: [{encryption_key: 0x" + secret + ", spii: 1}]"))
	f.Add([]byte("sas:\n- integrity_kye: \"0x" + secret + "\n  encryption_key: file:" + secret))
	f.Add([]byte("a: &" + secret + " 1\nlocal: [*" + secret + ", *b" + secret + "]"))
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := Parse("fuzz.yaml", data)
		var text string
		if err != nil {
			asJSON, _ := json.Marshal(err)
			text = err.Error() + string(asJSON)
		} else {
			text = fmt.Sprint(c.Warnings)
			for _, b := range c.Bundles() {
				for _, s := range b {
					if bad := s.Check(true, true); bad != nil {
						t.Errorf("%s: %v", s, bad)
					}
				}
			}
		}
		if strings.Contains(text, secret) {
			t.Errorf("a key is shown: %s", text)
		}
	})
}

func TestOnFailure(t *testing.T) {
	for text, want := range map[string]OnFailure{"drop": {}, "mirror mon0": {Mirror: "mon0"}} {
		c, err := Parse("f.yaml", []byte("on_failure: "+text+"\n"))
		if err != nil || c.OnFailure != want {
			t.Errorf("%s: %v, %v", text, c, err)
		}
	}
	for _, text := range []string{"keep", "mirror", "'mirror '"} {
		if _, err := Parse("f.yaml", []byte("on_failure: "+text+"\n")); err == nil {
			t.Errorf("%s is taken", text)
		}
	}
}

// What a running program takes over: nothing that has ended, and a warning where a
// text does not tell numbers that may have been used.
func TestTakeOver(t *testing.T) {
	state := func(spi int, rest string) string {
		return fmt.Sprintf("src 192.0.2.1 dst 192.0.2.2\n\tproto esp spi 0x%d reqid 1 mode tunnel\n\treplay-window 32\n\taead rfc4106(gcm(aes)) %s 128\n%s", spi, key20, rest)
	}
	const numbers = "\tanti-replay context: seq 0x0, oseq 0x0, bitmap 0x00000000\n"
	for text, want := range map[string]string{
		state(1, numbers) + state(2, numbers):                                                          "2 SAs",
		state(1, numbers) + state(2, ""):                                                               "2 SAs, said of esp-00000002",
		state(1, numbers) + "Deleted " + state(2, ""):                                                  "1 SAs",
		"ip xfrm state add src ::1 dst ::2 proto esp spi 1 aead 'rfc4106(gcm(aes))' " + key20 + " 128": "1 SAs",
		`"IPv4","*","*","0x1","AES-GCM with 16 octet ICV [RFC4106]","` + key20 + `","NULL",""`:         "1 SAs, said of esp-00000001",
	} {
		c, err := ParseKeys("f", []byte(text))
		if err != nil {
			t.Fatal(err)
		}
		before := len(c.Warnings)
		c.TakeOver()
		got := fmt.Sprintf("%d SAs", len(c.SAs))
		for _, w := range c.Warnings[before:] {
			_, names, _ := strings.Cut(w.Msg, "have come to: ")
			got += ", said of " + strings.Split(names, ".")[0]
		}
		if got != want {
			t.Errorf("%s: %s, want %s", text, got, want)
		}
		if c.TakeOver(); len(c.Warnings) > before+1 {
			t.Errorf("%s: said twice", text)
		}
	}
}

// A name that package keys made gives way where another SA has it.
func TestTakeRenames(t *testing.T) {
	read := func(dst string) *Config {
		c, err := ParseKeys("f", []byte("ip xfrm state add src 192.0.2.1 dst "+dst+" proto esp spi 1 aead 'rfc4106(gcm(aes))' "+key20+" 128"))
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	c := read("192.0.2.2")
	if err := c.Take(read("192.0.2.3")); err != nil || len(c.SAs) != 2 || c.SAs[1].Name != "esp-00000001-192.0.2.3" {
		t.Errorf("%v, %v", c.SAs, err)
	}
	more := read("192.0.2.2")
	more.SAs[0].OSeq, more.SAs[0].Seq, more.SAs[0].Bitmap = 7, 9, sa.Bitmap{3}
	if err := c.Take(more); err != nil || len(c.SAs) != 2 || c.SAs[0].OSeq != 7 || c.SAs[0].Seq != 9 || c.SAs[0].Bitmap.Len() != 2 {
		t.Errorf("%v, %v", c.SAs, err)
	}
}

// A mistake on each of many lines, and a line without an end, cost no more time than their
// bytes; the keys stay hidden.
func TestManyMistakes(t *testing.T) {
	var b strings.Builder
	b.WriteString("sas:\n")
	for i := range 40_000 {
		fmt.Fprintf(&b, "  - {name: s%d, spi: %d, dst: 192.0.2.2, protocol: esp, mode: tunnel, suite: aes128gcm16, encryption_key: %08x5ec7}\n", i, i+256, i*2654435761)
	}
	_, err := Parse("x", []byte(b.String()))
	var bad Errors
	if !errors.As(err, &bad) || len(bad) != 40_000 {
		t.Fatalf("%d mistakes, expected 40000", len(bad))
	}
	if strings.Contains(err.Error(), "5ec7") {
		t.Error("keys are shown")
	}
	long := good + "color: " + strings.Repeat("x", maxLine-10) + " 0x0123456789abcdef0123\n"
	if _, err = Parse("x", []byte(long)); err == nil || strings.Contains(err.Error(), "0123") || len(err.Error()) > 1000 {
		t.Errorf("a long line: %d bytes", len(err.Error()))
	}
}

// What says the same as an SA in force is that SA; what is taken over from another text makes a
// copy of it, since one in force does not change.
func TestReloadShares(t *testing.T) {
	text := func(key int) []byte {
		const field = "  - {name: %s, spi: 0x%x, dst: 192.0.2.1, protocol: esp, mode: tunnel, suite: null-sha256, integrity_key: 0x%064x}\n"
		return []byte("sas:\n" + fmt.Sprintf(field, "a", 0x101, 1) + fmt.Sprintf(field, "b", 0x102, key))
	}
	before, err := Parse("before", text(2))
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "now.yaml")
	if err := os.WriteFile(path, text(3), 0o600); err != nil {
		t.Fatal(err)
	}
	now, err := Reload(path, func(s *sa.SA) *sa.SA {
		for _, known := range before.SAs {
			if known.Unchanged(s) {
				return known
			}
		}
		return nil
	})
	if err != nil || now.SAs[0] != before.SAs[0] || now.SAs[1] == before.SAs[1] || now.SAs[1].Name != "b" {
		t.Fatalf("%v, %v of %v", err, now.SAs, before.SAs)
	}
	ahead, err := Parse("ahead", text(3))
	if err != nil {
		t.Fatal(err)
	}
	ahead.SAs[0].Seq, ahead.SAs[1].Seq = 7, 8
	if err := now.Take(ahead); err != nil || now.SAs[0].Seq != 7 || now.SAs[1].Seq != 8 || before.SAs[0].Seq != 0 {
		t.Errorf("%v, taken over %d and %d, in force %d", err, now.SAs[0].Seq, now.SAs[1].Seq, before.SAs[0].Seq)
	}
}

// A request with several mistakes is told of them in one order, however often it comes.
func TestRequestMistakes(t *testing.T) {
	told := map[string]int{}
	for range 50 {
		_, err := ParseRequest([]byte(`{"wire": {}, "host": {}, "queues": 1, "profile": "full", "sas": []}`))
		if err == nil {
			t.Fatal("fields that a request must not have were taken")
		}
		told[err.Error()]++
	}
	if len(told) != 1 {
		t.Errorf("told in %d ways", len(told))
	}
}
