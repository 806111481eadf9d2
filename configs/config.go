// Package configs holds the sample configurations and the loader for them.
//
// A configuration is one YAML (or JSON) document, decoded strictly into types
// that are already parsed: addresses, prefixes, suites, keys that never print.
// Every mistake is collected, each with its place; no message and no quoted
// line ever shows a key. What is unwise but allowed becomes a warning.
//
// Load and Parse read a configuration. LoadKeys and ParseKeys also take the texts
// that package keys reads, and are what a program wants that asks people for SAs;
// ParseForeign and ParseRequest are for texts that others have sent.
//
// The package opens nothing but the file it is given and the key files that
// this one names.
package configs

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"tapsec/internal/files"
	"tapsec/keys"
	"tapsec/sa"
)

// Form says how opened frames are delivered (contract, Decap form).
type Form string

// The forms.
const (
	InPlace Form = "inplace" // same length as on the wire, plaintext in place of the ciphertext
	Decap   Form = "decap"   // verified portions removed, for hosts without a transport
)

// UnmarshalText reads "inplace" or "decap".
func (f *Form) UnmarshalText(b []byte) error { return oneOf(f, b, InPlace, Decap) }

// MarshalText writes the form's name.
func (f Form) MarshalText() ([]byte, error) { return []byte(f), nil }

// Annotate says how the verdict travels with the frame.
type Annotate string

// The ways.
const (
	Trailer Annotate = "trailer" // after the frame (docs/trailer.md)
	None    Annotate = "none"    // not at all
)

// UnmarshalText reads "trailer" or "none".
func (a *Annotate) UnmarshalText(b []byte) error { return oneOf(a, b, Trailer, None) }

// MarshalText writes the way's name.
func (a Annotate) MarshalText() ([]byte, error) { return []byte(a), nil }

func oneOf[S ~string](v *S, text []byte, names ...S) error {
	for _, n := range names {
		if string(n) == string(text) {
			*v = n
			return nil
		}
	}
	choice := make([]string, len(names))
	for i, n := range names {
		choice[i] = string(n)
	}
	return fmt.Errorf("expected %s, found %s", sa.OneOf(choice), sa.Quote(string(text)))
}

// OnFailure says what the transport does with a frame that failed a check besides
// dropping it: nothing, or show it to the interface named.
type OnFailure struct{ Mirror string }

// UnmarshalText reads "drop" or "mirror IF".
func (o *OnFailure) UnmarshalText(b []byte) error {
	switch name, mirror := strings.CutPrefix(string(b), "mirror "); {
	case string(b) == "drop":
		*o = OnFailure{}
	case mirror && strings.TrimSpace(name) != "":
		o.Mirror = strings.TrimSpace(name)
	default:
		return fmt.Errorf("expected drop, or mirror and an interface, found %s", sa.Quote(string(b)))
	}
	return nil
}

// Interface is a TAP, or an existing interface of any kind.
type Interface struct {
	Name   string `yaml:"name"`
	MTU    int    `yaml:"mtu"`    // bytes, without the Ethernet header; 0 leaves it as it is
	Netns  string `yaml:"netns"`  // named network namespace of the kernel's side; empty: where tapsec runs
	Attach bool   `yaml:"attach"` // it exists already, and is read and written as a network stack does
}

// Host is the TAP towards the transport, and what is delivered on it.
type Host struct {
	Interface
	Form     Form     `yaml:"form"`
	Annotate Annotate `yaml:"annotate"`
}

// Switches say what the NIC does once it runs.
type Switches struct {
	Active bool `yaml:"active"` // receive offload is activated at start
	AH     bool `yaml:"ah"`
	ESP    bool `yaml:"esp"` // each protocol can be switched off by itself
}

// Config is one configuration.
type Config struct {
	Profile          sa.Profile   `yaml:"profile"`
	SACapacity       int          `yaml:"sa_capacity"` // SA bundles that the NIC holds, if fewer than the profile's; 0 sets no bound
	AllowLegacy      bool         `yaml:"allow_legacy"`
	InsecureKeyFiles bool         `yaml:"insecure_key_files"`
	Queues           int          `yaml:"queues"`
	Wire             Interface    `yaml:"wire"`
	Host             Host         `yaml:"host"`
	Offload          Switches     `yaml:"offload"`
	SAs              []*sa.SA     `yaml:"sas"`
	Policy           []sa.Policy  `yaml:"policy"`     // the transport's; the first rule that matches decides
	Local            []netip.Addr `yaml:"local"`      // the transport's own addresses; none: those of its stack's interface
	OnFailure        OnFailure    `yaml:"on_failure"` // what the transport does with frames that failed a check
	Warnings         []Problem    `yaml:"-"`          // sorted by place

	Files  []string      `yaml:"-"` // that it was read from, key files included
	Logs   []string      `yaml:"-"` // those among them that a daemon writes on
	Former []keys.Former `yaml:"-"` // earlier SAs with the identity of one of SAs, and other keys

	annotate          Problem  // the place of host.annotate, for Live
	name              string   // of the text, for TakeOver
	ended, unnumbered []string // names of its SAs
}

// saFields is an SA as in the file: the suite can only be read with the protocol, encap's
// port is written out, and seq_low is the low half of a number whose high half is seq_high.
type saFields struct {
	sa.SA
	Suite  suite   `yaml:"suite"`
	Encap  *encap  `yaml:"encap"`
	SeqLow *uint32 `yaml:"seq_low"`
}

// suite is the name of one; null is a word, too.
type suite string

type encap struct {
	Port uint16 `yaml:"port"`
}

func (f *saFields) defaults() { f.Window, f.PadCheck = sa.DefaultWindow, true }

// Default is the configuration of an empty file: profile full, one queue, TAPs
// wire0 and host0, offload active, no SA.
func Default() *Config {
	full, _ := sa.ProfileByName("full")
	return &Config{
		Profile: full,
		Queues:  1,
		Wire:    Interface{Name: "wire0"},
		Host:    Host{Interface{Name: "host0"}, InPlace, Trailer},
		Offload: Switches{true, true, true},
	}
}

// Load reads the configuration file at path. Mistakes in it are of type Errors.
func Load(path string) (*Config, error) { return Reload(path, nil) }

// Reload is Load beside SAs in force. known returns the one of these that says the same as one that
// was read, and takes its place in memory, or nil. It may be nil itself.
func Reload(path string, known func(*sa.SA) *sa.SA) (*Config, error) {
	if path == "-" { // it is read again, and key files lie beside it
		return nil, errors.New("configuration: expected a file, found standard input")
	}
	data, err := files.Read(path, nil)
	if err != nil {
		return nil, fmt.Errorf("configuration: %w", err)
	}
	c, err := read(path, data, known)
	if c != nil {
		c.Files = append(c.Files, path)
	}
	return c, err
}

// Read is Parse for a whole file, and says so if that is another tool's text.
func Read(name string, data []byte) (*Config, error) { return read(name, data, nil) }

func read(name string, data []byte, known func(*sa.SA) *sa.SA) (*Config, error) {
	d := newDecoder(name, keys.Text(data))
	d.known = known
	c, err := d.config(asItIs)
	if err == nil {
		return c, nil
	}
	if form := keys.Detect(data); form != keys.YAML && form != keys.Unknown {
		return nil, fmt.Errorf("%s: expected a configuration, found SAs in the form %s; give the file with -k, or make a configuration of it with tapsec keys", name, form)
	}
	return nil, err
}

// Parse reads a configuration. The name stands in messages, and key files are
// looked for relative to its directory. Mistakes are of type Errors.
func Parse(name string, data []byte) (*Config, error) {
	return newDecoder(name, keys.Text(data)).config(asItIs)
}

// ParseForeign is Parse for somebody else's text: it opens no file.
func ParseForeign(name string, data []byte) (*Config, error) {
	d := newDecoder(name, data)
	d.noKeyFiles = true
	return d.config(asItIs)
}

func asItIs(root *yaml.Node) *yaml.Node { return root }

// ParseSAs reads the SAs of a configuration, a list of SAs, or a single one.
func ParseSAs(name string, data []byte) (*Config, error) {
	return newDecoder(name, keys.Text(data)).config(asSAs)
}

// asSAs makes a configuration's tree of that of its SAs.
func asSAs(root *yaml.Node) *yaml.Node {
	list := &yaml.Node{Kind: yaml.SequenceNode, Tag: "!!seq", Line: root.Line, Column: root.Column, Content: []*yaml.Node{root}}
	switch {
	case root.Kind == yaml.SequenceNode:
		list = root
	case root.Kind != yaml.MappingNode || textField(root, "spi") == "":
		return root
	}
	field := &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: "sas", Line: root.Line, Column: root.Column}
	return &yaml.Node{Kind: yaml.MappingNode, Tag: "!!map", Line: root.Line, Column: root.Column, Content: []*yaml.Node{field, list}}
}

// ParseRequest reads SAs that another program sent: JSON with only the fields sas and
// allow_legacy, which may not name key files.
func ParseRequest(data []byte) (*Config, error) {
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(data, &fields); err != nil {
		return nil, errors.New("expected a JSON object with sas")
	}
	d := newDecoder("request", data)
	d.noKeyFiles = true
	return d.config(func(root *yaml.Node) *yaml.Node {
		for _, name := range slices.Sorted(maps.Keys(fields)) {
			if name != "sas" && name != "allow_legacy" {
				d.say(root, shown(name), "there is no such field; there are allow_legacy, sas")
			}
		}
		return root
	})
}

// config makes the configuration of the text, whose tree wrap may put into another one.
func (d *decoder) config(wrap func(*yaml.Node) *yaml.Node) (*Config, error) {
	whole := *d
	c, err := d.try(wrap, true)
	if d.undivided {
		whole.failed, whole.broken = map[string]bool{}, map[string]bool{}
		*d = whole
		c, err = d.try(wrap, false)
	}
	return c, err
}

// try is config, entry by entry or as a whole.
func (d *decoder) try(wrap func(*yaml.Node) *yaml.Node, divided bool) (*Config, error) {
	root := d.parse(divided)
	if root == nil {
		return nil, d.errors()
	}
	c := Default()
	d.root = wrap(root)
	d.learnSecrets(d.root, false)
	d.insecureKeyFiles = textField(d.root, "insecure_key_files") == "true"
	d.value(d.root, valueOf(c), "")
	if !d.undivided {
		c.check(d)
	}
	if len(d.bad) > 0 || d.undivided {
		return nil, d.errors()
	}
	c.Warnings, c.Files = d.warnings, d.keyFiles
	d.quote(c.Warnings)
	return c, nil
}

// ParseKeys reads SAs from a configuration, or from a text that package keys reads. With
// the latter everything else is as in Default, obsolete algorithms are allowed, and the
// warnings say what was left out.
func ParseKeys(name string, data []byte) (*Config, error) {
	if keys.Detect(data) == keys.YAML {
		return Parse(name, data)
	}
	read, err := keys.Read(name, data)
	if err != nil {
		return nil, err
	}
	c := Default()
	c.SAs, c.AllowLegacy = read.All, true
	c.name, c.ended, c.unnumbered, c.Former = name, read.Ended, read.Unnumbered, read.Former
	for _, n := range read.Notes {
		c.Warnings = append(c.Warnings, Problem{File: name, Msg: n})
	}
	return c, nil
}

// TakeOver prepares SAs of another tool's text for a program that continues them: SAs that
// have ended are left out, and a warning names those whose present numbers the text does
// not tell.
func (c *Config) TakeOver() {
	ended := map[string]bool{}
	for _, name := range c.ended {
		ended[name] = true
	}
	c.SAs = slices.DeleteFunc(c.SAs, func(s *sa.SA) bool { return ended[s.Name] })
	gone := func(name string) bool { return ended[name] }
	if unknown := slices.DeleteFunc(c.unnumbered, gone); len(unknown) > 0 {
		c.Warnings = append(c.Warnings, Problem{File: c.name, Msg: fmt.Sprintf("the text does not say what numbers these SAs have come to: %s. "+
			"If they are in use, one that sends repeats numbers, and one that receives takes replays; ip xfrm state tells", sa.Few(unknown, 3, ", "))})
	}
	c.ended, c.unnumbered = nil, nil
}

// Warn prints the warnings, a line for each.
func (c *Config) Warn(w io.Writer) {
	for _, p := range c.Warnings {
		fmt.Fprintln(w, "warning:", p)
	}
}

// Take adds the SAs of another configuration as newer ones. An SA that is here already, by
// name and keys, only brings its present numbers. A different one of that name or identity
// is an error, and then none is added.
func (c *Config) Take(other *Config) error {
	byName, byID := map[string]*sa.SA{}, map[sa.ID]*sa.SA{}
	if len(other.SAs) > 0 {
		for _, s := range c.SAs {
			byName[s.Name], byID[s.ID()] = s, s
		}
	}
	var more []*sa.SA
	other.rename(byName)
	for _, s := range other.SAs {
		switch named, same := byName[s.Name], byID[s.ID()]; {
		case named == nil && same == nil:
			more = append(more, s)
		case named != same || !s.Same(same):
			return fmt.Errorf("%s cannot stand beside %s: names must differ, and SPI, addresses or protocol; take one of them out", s, cmp.Or(named, same))
		}
	}
	ahead := map[*sa.SA]*sa.SA{}
	for _, s := range other.SAs {
		if known := byID[s.ID()]; known != nil {
			ahead[known] = s
		}
	}
	for i, s := range c.SAs {
		if o := ahead[s]; o != nil { // s itself may be in force
			now := *s
			now.Advance(o)
			c.SAs[i] = &now
		}
	}
	c.SAs = append(c.SAs, more...)
	c.name = cmp.Or(c.name, other.name)
	c.ended, c.unnumbered = append(c.ended, other.ended...), append(c.unnumbered, other.unnumbered...)
	c.Former = append(c.Former, other.Former...)
	c.AllowLegacy = c.AllowLegacy || other.AllowLegacy
	c.Warnings = append(c.Warnings, other.Warnings...)
	c.Files, c.Logs = append(c.Files, other.Files...), append(c.Logs, other.Logs...)
	return nil
}

// rename gives SAs another name if package keys made theirs and it is taken.
func (c *Config) rename(taken map[string]*sa.SA) {
	for _, s := range c.SAs {
		if o := taken[s.Name]; o != nil && s.ID() != o.ID() && generated.MatchString(s.Name) && s.Dst.IsValid() {
			s.Name += "-" + s.Dst.String()
		}
	}
}

// parse makes the tree of the text's one document, without the entries where it is
// divided; nil where it did not.
func (d *decoder) parse(divided bool) *yaml.Node {
	text := d.text
	if divided {
		if e, rest := divide(text); e != nil {
			d.entries, text = e, rest
		}
	}
	root, err := d.document(text)
	if e := d.entries; e != nil && (root == nil || err != nil || !e.in(root)) {
		d.undivided = true
		return nil
	}
	if err != nil {
		d.syntax(err)
	}
	return root
}

// document makes the tree of a text that is one document, and the error of what is
// none.
func (d *decoder) document(text string) (*yaml.Node, error) {
	var doc, more yaml.Node
	stream := yaml.NewDecoder(strings.NewReader(text))
	switch err := stream.Decode(&doc); {
	case errors.Is(err, io.EOF):
		d.bad = append(d.bad, Problem{File: d.file, Line: 1, Col: 1, Msg: "the file is empty; start from a sample in configs/"})
		d.quoted = len(d.bad)
		return nil, nil
	case err != nil:
		return nil, err
	}
	switch err := stream.Decode(&more); {
	case err == nil:
		d.say(&more, "", "expected one document, found a second one; leave out the line ---")
	case !errors.Is(err, io.EOF):
		return doc.Content[0], err
	}
	return doc.Content[0], nil
}

// Capacity is the number of SA bundles that the NIC holds; 0 sets no bound.
func (c *Config) Capacity() int {
	if c.SACapacity > 0 {
		return c.SACapacity
	}
	return c.Profile.Capacity
}

// Live returns why this configuration must not run on TAPs, though it is good for
// captures: it delivers frames in place without a verdict.
func (c *Config) Live() error {
	if c.Host.Form != InPlace || c.Host.Annotate != None {
		return nil
	}
	p := c.annotate
	p.Field = "host.annotate"
	p.Msg = "with form: inplace nobody could tell good frames from bad ones; use annotate: trailer, or form: decap"
	return Errors{p}
}

// Bundles gives the SAs that the NIC is to hold: each one SA, or an AH and the ESP SA
// beneath it. Required ones come first.
func (c *Config) Bundles() [][]*sa.SA {
	nic, _ := c.place(nil)
	return nic
}

// Unoffloaded gives the SAs that stay with the transport: those never offloaded, and
// preferred ones that the NIC cannot hold.
func (c *Config) Unoffloaded() []*sa.SA {
	_, rest := c.place(nil)
	return rest
}

// place divides the SAs between NIC and transport. For each SA that the NIC should hold but
// cannot, it calls refuse with the reason.
func (c *Config) place(refuse func(*sa.SA, error)) (nic [][]*sa.SA, rest []*sa.SA) {
	all := c.AllBundles()
	for _, wish := range []sa.Offload{sa.Required, sa.Preferred, sa.Never} {
		for _, b := range all {
			if b[0].Offload != wish {
				continue
			}
			err := errNever
			if wish != sa.Never {
				err = c.room(b, len(nic))
			}
			if err == nil {
				nic = append(nic, b)
				continue
			}
			rest = append(rest, b...)
			if refuse != nil && wish != sa.Never {
				refuse(b[0], err)
			}
		}
	}
	return nic, rest
}

var errNever = errors.New("offload: never")

// room reports whether a NIC that holds n bundles can take this one too.
func (c *Config) room(b []*sa.SA, n int) error {
	for i, s := range b {
		var partner *sa.SA
		if len(b) == 2 {
			partner = b[1-i]
		}
		if err := c.Profile.Supports(s, partner); err != nil {
			return err
		}
	}
	if limit := c.Capacity(); limit > 0 && n >= limit {
		return fmt.Errorf("the NIC holds %d SA bundles and no more", limit)
	}
	return nil
}

// AllBundles groups the SAs in the order of the file: single ones, or the AH and the ESP SA
// of a bundle.
func (c *Config) AllBundles() [][]*sa.SA {
	beneath := map[string]*sa.SA{} // by name, those that bundles name
	for _, s := range c.SAs {
		if s.Bundle != "" {
			beneath[s.Bundle] = nil
		}
	}
	for _, s := range c.SAs {
		if _, named := beneath[s.Name]; named {
			beneath[s.Name] = s
		}
	}
	all := make([][]*sa.SA, 0, len(c.SAs))
	for i, s := range c.SAs {
		_, named := beneath[s.Name]
		switch esp := beneath[s.Bundle]; {
		case s.Bundle != "" && esp != nil:
			all = append(all, []*sa.SA{s, esp})
		case !named:
			all = append(all, c.SAs[i:i+1:i+1])
		}
	}
	return all
}
