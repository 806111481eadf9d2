package keys

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"tapsec/sa"
)

// The lines of charon's log about SAs. A message follows the number of its worker and its
// group, perhaps with a level, and with ike_name the name of the IKE SA. With chd = 4 there are
// keys.
var (
	charonStart  = regexp.MustCompile(`(?m)(?:^|\s)\d{2,}\[(?:CFG|CHD|DMN|ENC|IKE|JOB|KNL|LIB|NET)\d?\] `)
	charonLine   = regexp.MustCompile(`(?:^|\s)(\d{2,})\[([A-Z]{3})\d?\] (?:<[^>]*> )?(.*)`)
	charonKey    = regexp.MustCompile(`^((?:encryption|integrity) (?:initiator|responder)) key => (\d+) bytes`)
	charonDump   = regexp.MustCompile(`^ +(\d+): ((?:[0-9A-F]{2}(?: |$))+)`)
	charonUsing  = regexp.MustCompile(`^ +using (\S+) for (encryption|integrity)`)
	charonAdding = regexp.MustCompile(`^(?:adding|registering) (inbound|outbound) (ESP|AH) SA`)
	charonSPI    = regexp.MustCompile(`^ +SPI 0x([0-9a-f]+), src (\S+) dst (\S+)`)
	charonMade   = regexp.MustCompile(`CHILD_SA (\S+\{\d+\}) established with SPIs ([0-9a-f]+)_i ([0-9a-f]+)_o`)
	charonGone   = regexp.MustCompile(`^CHILD_SA (\S+\{\d+\}) state change: \w+ => DESTROYING`)
	charonBegins = regexp.MustCompile(`^Starting IKE charon`)
	charonIKE    = regexp.MustCompile(`^(parsed|generating) (\w+) (request|response) (\d+) `)
	charonCame   = regexp.MustCompile(`^received packet: from (\S+) to (\S+) `)
	charonSent   = regexp.MustCompile(`^sending packet: from (\S+)\[\d+\] to (\S+)\[\d+\]`)
)

// charon is the log of strongSwan's daemon while it is read, or that of several: what stands before
// a worker's number, except for the time, tells them apart. The workers' lines are interleaved; each
// worker handles one IKE message at a time.
type charon struct {
	workers map[string]*worker     // by daemon and number
	open    map[message]*agreement // exchanges that follow-up key exchanges continue
	nat     map[[2]netip.Addr]bool // addresses between which UDP encapsulation is in force
	seen    map[sa.ID]bool
	spis    map[string]int    // places in found, the latest of each SPI
	pairs   map[string][2]int // places of a CHILD_SA's two SAs, by daemon and name
	found   []parsed
	from    []string // whose log has them, place by place
	daemon  string   // that of the present line
}

// message identifies a message of an exchange.
type message struct {
	ends, kind string // between whom; request or response
	id         int
}

// agreement is what an exchange has settled about its SAs.
type agreement struct {
	mode sa.Mode // tunnel, unless a message asks for transport mode; IKEv1 shows none
	esn  bool
}

// worker is what one of charon's threads has said about its present message.
type worker struct {
	*agreement
	parsed    string // "request" or "response", empty before the first one
	ends      string // between whom the message came
	at        message
	behindNAT bool
	use       map[string]string // encryption, integrity: charon's name of the algorithm
	keys      map[string][]byte // encryption initiator, integrity responder ...
	dump      string            // the key whose bytes follow
	left      int               // how many of them
	cut       bool              // a dump ended before its key did
	adding    [2]string         // inbound or outbound, ESP or AH: its addresses follow
	disorder  bool              // those of another one before it did not
	made      []*sa.SA
}

// parseCharon reads a log of charon. It gives the SAs of both directions, deleted ones too,
// since a capture may have frames of theirs.
//
//  1. What a worker parsed says whose keys are the initiator's.
//  2. Algorithms and the keys of both directions.
//  3. One SA after the other, with SPI and addresses.
//  4. The worker's answer says whether it accepted transport mode. For IKEv1 the log
//     does not show that.
//  5. Which two SAs a CHILD_SA has, and that it is destroyed: with it they end. A daemon
//     that starts has none of those before.
//  6. If further key exchanges follow (RFC 9370), the last of them makes the SAs,
//     perhaps by another worker, which takes over what was agreed.
func parseCharon(text string) *found {
	c := charon{map[string]*worker{}, map[message]*agreement{}, map[[2]netip.Addr]bool{}, map[sa.ID]bool{}, map[string]int{}, map[string][2]int{}, nil, nil, ""}
	for i, line := range strings.Split(text, "\n") {
		line = strings.TrimRight(line, " \t")
		at := charonLine.FindStringSubmatchIndex(line)
		if at == nil {
			continue
		}
		m := []string{"", line[at[2]:at[3]], line[at[4]:at[5]], line[at[6]:at[7]]}
		c.daemon = daemon(line[:at[2]])
		w := c.workers[c.daemon+m[1]]
		if w == nil {
			w = &worker{agreement: &agreement{mode: sa.Tunnel}}
			c.workers[c.daemon+m[1]] = w
		}
		switch m[2] {
		case "ENC":
			c.message(w, m[3])
		case "CFG", "IKE":
			w.agreed(m[3])
			c.pair(m[3], i+1)
		case "DMN":
			if charonBegins.MatchString(m[3]) {
				for i, from := range c.from {
					if from == c.daemon {
						c.end(i)
					}
				}
				maps.DeleteFunc(c.workers, func(name string, _ *worker) bool { return strings.TrimRight(name, "0123456789") == c.daemon })
			}
		case "NET":
			c.sent(w, m[3])
		case "CHD":
			c.child(w, m[3], i+1)
		}
	}
	return &found{all: c.found}
}

// daemon is what tells daemons apart of what stands before a worker's number: a host, a process, a
// container, but no time, whose words have no letter, begin with a digit or name a day, month or zone.
func daemon(prefix string) string {
	var b strings.Builder
	for _, word := range strings.Fields(prefix) {
		if (word[0] < '0' || word[0] > '9') && strings.ContainsFunc(word, unicode.IsLetter) && !calendar.MatchString(word) {
			b.WriteString(word + " ")
		}
	}
	return b.String()
}

var calendar = regexp.MustCompile(`^(?:Sun|Mon|Tue|Wed|Thu|Fri|Sat|Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec),?$|^(?:[AP]M|UTC|GMT|[A-Z]{1,3}T)$`)

// pair notes which SAs a CHILD_SA has. One that no line has added is missing in the log.
func (c *charon) pair(text string, line int) {
	m := charonMade.FindStringSubmatch(text)
	if m == nil {
		return
	}
	var pair [2]int
	for i, spi := range m[2:] {
		at, known := c.spis[spi]
		if !known {
			at = len(c.found)
			p := parsed{SA: newSA(), line: line, err: errNotAdded}
			n, _ := strconv.ParseUint(spi, 16, 32)
			p.SPI = uint32(n)
			c.found, c.from, c.spis[spi] = append(c.found, p), append(c.from, c.daemon), at
		}
		pair[i] = at
	}
	c.pairs[c.daemon+m[1]] = pair
}

var errNotAdded = errors.New("the log does not hold the lines that add it, with its addresses; let charon log chd = 4")

// end ends SAs by their places.
func (c *charon) end(places ...int) {
	for _, i := range places {
		c.found[i].closed = true
		delete(c.seen, c.found[i].ID())
	}
}

// message starts over with each message received, unless it continues what an earlier one
// agreed.
func (c *charon) message(w *worker, text string) {
	m := charonIKE.FindStringSubmatch(text)
	if m == nil {
		m = make([]string, 5)
	}
	transport := strings.Contains(text, "N(USE_TRANSP)")
	kind := "request"
	if strings.Contains(text, " response ") {
		kind = "response"
	}
	switch {
	case strings.HasPrefix(text, "parsed "):
		id, _ := strconv.Atoi(m[4])
		at := message{w.ends, kind, id}
		*w = worker{agreement: &agreement{mode: sa.Tunnel}, ends: w.ends, at: at, behindNAT: w.behindNAT}
		if slices.Contains([]string{"IKE_AUTH", "CREATE_CHILD_SA", "IKE_FOLLOWUP_KE", "QUICK_MODE"}, m[2]) {
			w.parsed = kind
		}
		if m[2] == "QUICK_MODE" {
			w.mode = sa.Auto
		} else if transport && kind == "response" {
			w.mode = sa.Transport
		}
		if before := c.open[at]; before != nil && m[2] == "IKE_FOLLOWUP_KE" {
			w.agreement = before
		}
	case strings.HasPrefix(text, "generating ") && kind == "response" && transport:
		w.mode = sa.Transport
		for _, s := range w.made {
			s.Mode = sa.Transport
		}
	}
	if w.parsed != "" && strings.Contains(text, "N(ADD_KE)") {
		next := w.at
		next.id++
		c.open[next] = w.agreement
	}
}

func (w *worker) agreed(text string) {
	switch {
	case strings.HasPrefix(text, "selected proposal: ESP:"), strings.HasPrefix(text, "selected proposal: AH:"):
		w.esn = strings.HasSuffix(text, "/EXT_SEQ")
	case strings.Contains(text, "host is behind NAT"), strings.HasPrefix(text, "faking NAT situation"):
		w.behindNAT = true
	}
}

// sent notes the addresses between which a worker has just met a NAT.
func (c *charon) sent(w *worker, text string) {
	if m := charonCame.FindStringSubmatch(text); m != nil {
		w.ends = m[1] + " " + m[2]
	}
	m := charonSent.FindStringSubmatch(text)
	if m == nil || !w.behindNAT {
		return
	}
	w.behindNAT = false
	a, b := address(m[1]), address(m[2])
	c.nat[[2]netip.Addr{a, b}], c.nat[[2]netip.Addr{b, a}] = true, true
}

// child reads a line about a CHILD_SA.
func (c *charon) child(w *worker, text string, line int) {
	if m := charonDump.FindStringSubmatch(text); m != nil && w.left > 0 {
		w.bytes(m[1], strings.Fields(m[2]))
		return
	}
	w.cut = w.cut || w.left > 0
	w.left = 0
	if charonUsing.MatchString(text) && len(w.made) > 0 { // the next exchange, whose message is missing
		*w = worker{agreement: &agreement{mode: sa.Tunnel}, ends: w.ends}
	}
	if m := charonUsing.FindStringSubmatch(text); m != nil {
		put(&w.use, m[2], m[1])
	} else if m := charonKey.FindStringSubmatch(text); m != nil {
		put(&w.keys, m[1], nil)
		w.dump = m[1]
		w.left, _ = strconv.Atoi(m[2])
	} else if m := charonAdding.FindStringSubmatch(text); m != nil {
		w.disorder = w.adding[0] != ""
		w.adding = [2]string(m[1:])
	} else if m := charonSPI.FindStringSubmatch(text); m != nil && w.adding[0] != "" {
		c.add(w, m, line)
		w.adding[0] = ""
	} else if m := charonGone.FindStringSubmatch(text); m != nil {
		if pair, known := c.pairs[c.daemon+m[1]]; known {
			c.end(pair[:]...)
		}
		delete(c.pairs, c.daemon+m[1])
	}
}

func put[V any](m *map[string]V, key string, value V) {
	if *m == nil {
		*m = map[string]V{}
	}
	(*m)[key] = value
}

// bytes takes a line of a dump: where it goes on, and bytes, at the end also as characters.
func (w *worker) bytes(at string, words []string) {
	w.cut = w.cut || at != strconv.Itoa(len(w.keys[w.dump]))
	for _, word := range words[:min(len(words), w.left)] {
		b, _ := strconv.ParseUint(word, 16, 8)
		w.keys[w.dump] = append(w.keys[w.dump], byte(b))
		w.left--
	}
}

// add makes an SA, only once if it is first registered and later added.
func (c *charon) add(w *worker, m []string, line int) {
	p := parsed{SA: newSA(), line: line, numbered: true}
	spi, _ := strconv.ParseUint(m[1], 16, 32)
	p.SPI, p.Src, p.Dst, p.Mode, p.ESN = uint32(spi), address(m[2]), address(m[3]), w.mode, w.esn
	p.err = p.Protocol.UnmarshalText([]byte(strings.ToLower(w.adding[1])))
	if c.nat[[2]netip.Addr{p.Src, p.Dst}] {
		p.Encap, p.Src = true, netip.Addr{} // a NAT may change the source
	}
	if c.seen[p.ID()] {
		return
	}
	c.seen[p.ID()] = true
	c.spis[m[1]] = len(c.found)
	if p.err == nil {
		p.err = w.algorithms(p.SA)
	}
	w.made = append(w.made, p.SA)
	c.found, c.from = append(c.found, p), append(c.from, c.daemon)
}

// algorithms gives an SA its suite and keys. What an exchange's initiator sends is protected by
// the initiator's keys (RFC 7296 section 2.17).
func (w *worker) algorithms(s *sa.SA) (err error) {
	whose := "initiator"
	switch {
	case w.disorder:
		return errors.New("the log does not hold the lines that add it and its counterpart in order")
	case len(w.keys) == 0:
		return errors.New("the log does not show its keys; let charon log chd = 4")
	case w.cut:
		return errors.New("the log does not hold its keys to their ends")
	case w.parsed == "":
		return errors.New("the log does not say who began the exchange; let charon log enc = 1")
	case (w.parsed == "response") == (w.adding[0] == "inbound"):
		whose = "responder"
	}
	s.EncryptionKey = sa.NewKey(w.keys["encryption "+whose])
	s.IntegrityKey = sa.NewKey(w.keys["integrity "+whose])
	var words []string
	for _, kind := range []string{"encryption", "integrity"} {
		if w.use[kind] == "" {
			continue
		}
		word, err := charonAlgorithm(w.use[kind], s.EncryptionKey.Len())
		if err != nil {
			return err
		}
		words = append(words, word)
	}
	s.Suite, err = sa.ParseSuite(s.Protocol, strings.Join(words, "-"))
	return err
}

// charonAlgorithm gives the keyword for charon's name of an algorithm.
func charonAlgorithm(name string, keyLen int) (string, error) {
	if c, icv, err := charonLog.cipher(name); err == nil {
		return c.keyword(keyLen, icv*8)
	}
	if word := charonLog.integrity(name); word != "" {
		return word, nil
	}
	return "", fmt.Errorf("the algorithm %s is not supported", sa.Quote(name))
}
