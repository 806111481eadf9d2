package configs

import (
	"fmt"
	"hash/maphash"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"tapsec/internal/near"
	"tapsec/sa"
)

// check finds mistakes that no field shows by itself.
func (c *Config) check(d *decoder) {
	c.checkInterfaces(d)
	if c.Profile.Legacy && !c.AllowLegacy {
		d.mistake("profile", "%s has nothing but obsolete algorithms (RFC 8221); say allow_legacy: true to use it all the same", c.Profile.Name)
	}
	bundled := c.checkBundles(d)
	for i, s := range c.SAs {
		if d.hasFailed(i) {
			continue
		}
		for _, p := range s.Check(bundled[s], c.AllowLegacy) {
			d.mistake(at(i, p.Field), "%s", p.Msg)
		}
	}
	c.checkUnique(d)
	c.checkPolicy(d)
	c.checkWarnings(d, bundled)
	if len(d.bad) == 0 {
		c.checkPlaces(d)
	}
}

// at is the path of an SA's field; of the SA itself where field is empty.
func at(i int, field string) string {
	return strings.TrimSuffix(fmt.Sprintf("sas[%d].%s", i, field), ".")
}

// hasFailed reports whether an SA could not be read at all.
func (d *decoder) hasFailed(i int) bool { return len(d.failed) > 0 && d.failed[at(i, "")] }

// isBroken reports whether an SA has a mistake.
func (d *decoder) isBroken(i int) bool { return len(d.broken) > 0 && d.broken[at(i, "")] }

// orSuite is a shorter sentence than err if a suite's name is merely misspelt.
func orSuite(err error, p sa.Protocol, found string) error {
	var names []string
	for _, s := range sa.Suites(p) {
		names = append(names, s.Name)
	}
	if meant := near.Name(found, names); meant != "" {
		return fmt.Errorf("there is no suite %s for %s; did you mean %s?", sa.Quote(found), p, meant)
	}
	return err
}

// sa reads an SA.
func (d *decoder) sa(n *yaml.Node, path string) *sa.SA {
	f := &d.fields
	*f = saFields{}
	d.value(n, valueOf(f), path)
	if !d.failed[path] { // it has fields at all
		f.finish(d, n, path)
	}
	if d.known != nil {
		if known := d.known(&f.SA); known != nil {
			return known
		}
	}
	own := f.SA
	return &own
}

// suite is sa.ParseSuite, remembered.
func (d *decoder) suite(p sa.Protocol, text string) (sa.Suite, error) {
	key := suiteKey{p, text}
	s, ok := d.suites[key]
	if ok {
		return s, nil
	}
	s, err := sa.ParseSuite(p, text)
	if err == nil {
		d.suites[key] = s
	}
	return s, err
}

type suiteKey struct {
	protocol sa.Protocol
	text     string
}

// finish completes the SA of what its fields say.
func (f *saFields) finish(d *decoder, n *yaml.Node, path string) {
	s := &f.SA
	if s.Protocol == 0 {
		d.mistake(path+".protocol", "is missing; say esp or ah")
		d.failed[path+".suite"] = true // means nothing without the protocol
	} else if f.Suite == "" {
		d.mistake(path+".suite", "is missing; say for instance aes128gcm16, aes256-sha256 or, for ah, sha256")
	} else if suite, err := d.suite(s.Protocol, string(f.Suite)); err != nil {
		d.mistake(path+".suite", "%v", orSuite(err, s.Protocol, string(f.Suite)))
	} else {
		s.Suite = suite
	}
	if s.Name == "" {
		s.Name = fmt.Sprintf("%s-%08x", s.Protocol, s.SPI)
	}
	if fieldOf(n, "spi") == nil {
		d.mistake(path+".spi", "is missing; say the SPI that the packets carry")
	}
	if f.Encap != nil {
		s.Encap = true
		if f.Encap.Port != sa.EncapPort && !d.failed[path+".encap"] {
			d.mistake(path+".encap.port", "expected %d, the port of encapsulated ESP, found %d; the port behind a NAT is encap_dst or encap_src", sa.EncapPort, f.Encap.Port)
		}
	}
	f.numbers(d, path, s)
	if s.Window == 0 {
		d.mistake(path+".window", "expected %d to %d, found 0; to let every replay pass say replay_off: true", sa.MinWindow, sa.MaxWindow)
	}
}

// numbers makes an SA's present number, for either direction, of seq_high and seq_low.
func (f *saFields) numbers(d *decoder, path string, s *sa.SA) {
	if f.SeqLow == nil {
		return
	}
	whole := uint64(f.SeqHigh)<<32 | uint64(*f.SeqLow)
	for _, n := range []struct {
		field string
		value *uint64
		wrong sa.Direction
	}{{"seq", &s.Seq, sa.Outbound}, {"oseq", &s.OSeq, sa.Inbound}} {
		switch {
		case *n.value != 0 && *n.value != whole:
			d.mistake(path+"."+n.field, "0x%x contradicts seq_high and seq_low, which say 0x%x; keep one of them", *n.value, whole)
		case s.Direction != n.wrong:
			*n.value = whole
		}
	}
	if s.ESN {
		s.SeqHigh = 0 // it is in the numbers
	}
}

func (c *Config) checkInterfaces(d *decoder) {
	for path, i := range map[string]Interface{"wire": c.Wire, "host": c.Host.Interface} {
		if n := i.Name; n == "" || len(n) > 15 || n == "." || n == ".." || strings.ContainsAny(n, "/:% \t") {
			d.mistake(path+".name", "expected an interface name of 1 to 15 characters without / : %% and blanks, found %s", sa.Quote(n))
		}
		if _, given := d.find(path + ".mtu"); given && (i.MTU < 68 || i.MTU > 65521) {
			d.mistake(path+".mtu", "expected 68 to 65521, found %d", i.MTU)
		}
		if strings.Contains(i.Netns, "/") {
			d.mistake(path+".netns", "expected the name of a network namespace as ip netns shows it, found %s", sa.Quote(i.Netns))
		}
	}
	if c.Wire.Name == c.Host.Name && c.Wire.Netns == c.Host.Netns {
		d.mistake("host.name", "expected another name than the wire interface's, %s", sa.Quote(c.Wire.Name))
	}
	if c.Wire.MTU > 0 && c.Host.MTU > c.Wire.MTU {
		d.warn("host.mtu", "is above the wire's %d: the host may send frames that the wire cannot carry", c.Wire.MTU)
	}
	if c.Queues < 1 || c.Queues > 256 {
		d.mistake("queues", "expected 1 to 256, found %d", c.Queues)
	}
	switch limit := c.Profile.Capacity; {
	case c.SACapacity < 0:
		d.mistake("sa_capacity", "expected a number of SA bundles, found %d", c.SACapacity)
	case limit > 0 && c.SACapacity > limit:
		d.mistake("sa_capacity", "expected at most the %d of profile %s, found %d", limit, c.Profile.Name, c.SACapacity)
	}
	place := []Problem{d.problem(d.node("host.annotate"), "", "")}
	d.quote(place)
	c.annotate = place[0]
}

// checkBundles checks what AH SAs say about the ESP SAs beneath them, and returns those.
func (c *Config) checkBundles(d *decoder) map[*sa.SA]bool {
	bundled := map[*sa.SA]bool{}
	wanted := map[string]bool{}
	for _, s := range c.SAs {
		wanted[s.Bundle] = true
	}
	index := c.index(wanted)
	for i, s := range c.SAs {
		if s.Protocol != sa.AH || s.Bundle == "" {
			continue
		}
		path := at(i, "bundle")
		j, found := index[s.Bundle]
		if !found {
			d.mistake(path, "there is no SA named %s", label(s.Bundle))
			continue
		}
		esp := c.SAs[j]
		switch {
		case esp.Protocol != sa.ESP && esp.Protocol != 0:
			d.mistake(path, "expected an ESP SA, but %s is %s", label(esp.Name), esp.Protocol)
		case d.isBroken(i) || d.isBroken(j):
		case esp.Dst != s.Dst:
			d.mistake(path, "the SAs of a bundle share dst, but %s goes to %s and this one to %s", label(esp.Name), esp.Dst, s.Dst)
		case esp.Src.IsValid() && s.Src.IsValid() && esp.Src != s.Src:
			d.mistake(path, "one of the SAs never matches: %s comes from %s and this one from %s", label(esp.Name), esp.Src, s.Src)
		case esp.Mode != s.Mode:
			d.mistake(path, "the SAs of a bundle share mode, but %s is %s and this one %s", label(esp.Name), esp.Mode, s.Mode)
		case esp.Offload != s.Offload:
			d.mistake(path, "the SAs of a bundle share offload, but %s is %s and this one %s", label(esp.Name), esp.Offload, s.Offload)
		case esp.Encap:
			d.mistake(path, "%s is UDP-encapsulated, and nothing beneath AH can be", label(esp.Name))
		case esp.Direction != s.Direction:
			d.mistake(path, "the SAs of a bundle share direction, but %s has %s and this one %s", label(esp.Name), esp.Direction, s.Direction)
		case bundled[esp]:
			d.mistake(path, "%s is in another bundle already", label(esp.Name))
		}
		bundled[esp] = true
	}
	return bundled
}

// index finds the first SA of each of these names.
func (c *Config) index(wanted map[string]bool) map[string]int {
	index := map[string]int{}
	for i, s := range slices.Backward(c.SAs) {
		if wanted[s.Name] {
			index[s.Name] = i
		}
	}
	return index
}

func (c *Config) checkUnique(d *decoder) {
	if !sa.Repeat(c.SAs, func(s *sa.SA) uint64 { return maphash.String(seed, s.Name) }) && !sa.Repeat(c.SAs, func(s *sa.SA) uint64 { return s.ID().Hash(seed) }) {
		return
	}
	names, ids := map[string]int{}, map[sa.ID]int{}
	for i, s := range c.SAs {
		if d.hasFailed(i) {
			continue
		}
		if first, ok := names[s.Name]; ok {
			d.mistake(at(i, "name"), "%s is the name of sas[%d] too", label(s.Name), first)
		} else {
			names[s.Name] = i
		}
		if d.isBroken(i) { // comparing it would only show consequences
			continue
		}
		if first, ok := ids[s.ID()]; ok {
			d.mistake(at(i, "spi"), "sas[%d] has the same protocol, SPI, dst and src", first)
		} else {
			ids[s.ID()] = i
		}
	}
}

var seed = maphash.MakeSeed()

func (c *Config) checkPolicy(d *decoder) {
	wanted := map[string]bool{}
	for _, p := range c.Policy {
		wanted[p.SA] = true
	}
	index := c.index(wanted)
	for i, p := range c.Policy {
		path := fmt.Sprintf("policy[%d]", i)
		_, found := index[p.SA]
		switch {
		case d.failed[path]:
		case p.Action == 0:
			d.mistake(path+".action", "is missing; say protect, bypass or discard")
		case p.Action != sa.Protect && p.SA != "":
			d.mistake(path+".sa", "belongs to action: protect, found %s", p.Action)
		case p.SA != "" && !found:
			d.mistake(path+".sa", "there is no SA named %s", label(p.SA))
		}
	}
}

// checkWarnings names what is allowed but unwise.
func (c *Config) checkWarnings(d *decoder, bundled map[*sa.SA]bool) {
	nonces := map[string]int{} // the first SA with each key
	shared := sa.Repeat(c.SAs, func(s *sa.SA) uint64 { return maphash.Bytes(seed, s.NonceKey().Bytes()) })
	for i, s := range c.SAs {
		if s.SPI >= 1 && s.SPI <= 255 {
			d.warn(at(i, "spi"), "%d is reserved (RFC 4303 section 2.1: 1 to 255)", s.SPI)
		}
		if bundled[s] && s.Suite.Name != "" && s.Suite.ICVLen == 0 {
			d.warn(at(i, "suite"), "%s has no integrity of its own; only the AH of the bundle protects it", s.Suite.Name)
		}
		if s.Suite.Legacy() && c.AllowLegacy {
			d.warn(at(i, "suite"), "%s is obsolete (RFC 8221)", s.Suite.Name)
		}
		if shared {
			d.warnOfSharedKey(nonces, s, i)
		}
		if s.ReplayOff {
			d.warn(at(i, "replay_off"), "%s takes every replay", shown(s.Name))
		}
	}
	if c.InsecureKeyFiles {
		d.warn("insecure_key_files", "key files that others can read are accepted")
	}
}

func (d *decoder) warnOfSharedKey(nonces map[string]int, s *sa.SA, i int) {
	if first, ok := sharesKey(nonces, s, i); ok {
		d.warn(at(i, nonceField(s)), "%s has the key of sas[%d], and under one key of %s no number may be sent twice (RFC 4106 section 3.1); give each SA and direction its own", shown(s.Name), first, s.Suite.Name)
	}
}

// sharesKey finds an SA before s, which is SA i, with the same key, if that repeats nonces.
// Direction does not matter: whoever receives on both has a peer that sends on both.
func sharesKey(nonces map[string]int, s *sa.SA, i int) (first int, ok bool) {
	key := string(s.NonceKey().Bytes())
	if !s.Suite.CounterMode() || key == "" {
		return 0, false
	}
	if first, ok = nonces[key]; !ok {
		nonces[key] = i
	}
	return first, ok
}

func nonceField(s *sa.SA) string {
	if s.Protocol == sa.AH {
		return "integrity_key"
	}
	return "encryption_key"
}

// checkPlaces finds the SAs that the NIC should hold but cannot.
func (c *Config) checkPlaces(d *decoder) {
	var places map[*sa.SA]int
	c.place(func(s *sa.SA, err error) {
		if places == nil {
			places = make(map[*sa.SA]int, len(c.SAs))
			for i, s := range c.SAs {
				places[s] = i
			}
		}
		path := at(places[s], "offload")
		if s.Offload == sa.Required {
			d.mistake(path, "%v; say offload: preferred to leave it to the transport, or choose another profile", err)
			return
		}
		d.warn(path, "%s stays with the transport: %v", shown(s.Name), err)
	})
}
