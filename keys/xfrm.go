package keys

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"tapsec/sa"
)

// state is one block of `ip xfrm state`, or one command, while it is read.
type state struct {
	parsed
	cipher, integrity string // keywords
	auth              string // Linux's name of integrity
	window            uint64
	bitmap            []uint32 // Linux's, lowest word first
	ring              bool     // the bitmap is a ring
	printed           []uint32 // the bitmap as ip prints it, highest word first
	wanted            int      // words of it still to come
	command           bool     // not a block
	algorithms        bool     // some line had one
	headed            bool     // some line had its protocol and SPI
	untold            bool     // the ICV's length, which integrity does not tell alone
	skip              bool     // in the statistics, whose words mean something else
}

// xfrm is a text while it is read: the output of `ip xfrm state` or `ip xfrm monitor`, perhaps
// with commands in between and policies at the end.
type xfrm struct {
	all      []*state
	cur      *state    // nil while lines concern no state
	other    bool      // lines concern something else, which may have words of a state
	monitor  bool      // events, which come in order of time
	now      time.Time // of the present event, if the text has times
	policies int
	firstAt  int // line of the first policy
}

// parseXFRM reads for each state a line with the addresses, then lines that begin with a word;
// commands, of a script or for ip -batch, one by one. It gives the oldest first: ip lists the
// newest first, commands and events are in order.
func parseXFRM(text string) *found {
	x := xfrm{}
	lines := strings.Split(text, "\n")
	for i := 0; i < len(lines); i++ {
		number := i + 1
		line, last := joined(lines, i)
		i = last
		if x.commands(line, number) {
			continue
		}
		for _, part := range strings.Split(line, `\`) { // ip -o
			if words := strings.Fields(part); len(words) > 0 {
				x.line(words, number)
			}
		}
	}
	x.end(strings.Fields(lines[len(lines)-1]))
	return x.finish()
}

// end looks at the last line, if no line end follows it: one that ends in a key may be cut short.
func (x *xfrm) end(words []string) {
	if n := len(words); n > 2 && len(x.all) > 0 {
		x.all[len(x.all)-1].cut(words[n-3] == "enc" || words[n-3] == "auth")
	}
}

// joined is line i with those that continue it, if it may be a command, and the number of the
// last of them. A line of ip -o ends in a backslash, too.
func joined(lines []string, i int) (line string, last int) {
	words := strings.Fields(lines[i])
	if !strings.HasSuffix(lines[i], `\`) || words[0] == "src" || words[0][0] == '[' || words[0] == `\` || slices.Contains(events, words[0]) {
		return lines[i], i
	}
	var whole strings.Builder
	for ; strings.HasSuffix(lines[i], `\`) && i+1 < len(lines); i++ {
		whole.WriteString(strings.TrimSuffix(lines[i], `\`) + " ")
	}
	whole.WriteString(lines[i])
	return whole.String(), i
}

// mayCommand reports whether a line may hold a command, which most lines of a listing
// do not.
func mayCommand(line string) bool {
	return strings.Contains(line, "ip") || strings.Contains(line, "xfrm") || strings.ContainsAny(line, `'"\`)
}

// commands reads the commands of a line, if there are any.
func (x *xfrm) commands(line string, number int) bool {
	if !mayCommand(line) {
		return false
	}
	any := false
	for _, words := range splitShell(line) {
		verb, words := command(words)
		if verb == noVerb {
			continue
		}
		any, x.cur, x.other = true, nil, true
		s := &state{parsed: parsed{SA: newSA(), line: number, numbered: true, removes: verb}, command: true}
		s.arguments(words)
		x.all = append(x.all, s)
	}
	return any
}

// events are the first words of what ip xfrm monitor prints.
var events = []string{"Updated", "Deleted", "Expired", "Flushed", "Async", "acquire", "report", "Timestamp:", "migrate"}

// line reads a line of a listing.
func (x *xfrm) line(words []string, number int) {
	event := ""
	if t, n := eventTime(words); n > 0 {
		if x.now, words = t, words[n:]; len(words) == 0 {
			x.monitor, x.cur = true, nil
			return
		}
	}
	if slices.Contains(events, words[0]) {
		event, words, x.monitor, x.cur, x.other = words[0], words[1:], true, nil, true
	}
	switch {
	case x.headless(words):
		x.begin(parsed{line: number, err: errNoEnds})
	case len(words) < 4 || words[0] != "src" || words[2] != "dst":
	case strings.Contains(words[1]+words[3], "/"):
		if x.policies++; x.policies == 1 {
			x.firstAt = number
		}
		x.cur, x.other = nil, true
		return
	case len(words) == 4 || words[4] == "proto":
		x.begin(parsed{line: number, updates: event == "Updated", ended: event == "Deleted", expires: event == "Expired", at: x.now})
		if len(words) > 4 { // two lines that became one
			x.cur.err, words = x.cur.read(words[:4]), words[4:]
		}
	}
	if s := x.cur; s != nil && s.skip {
		s.limits(words)
	} else if s != nil && len(words) > 0 {
		if words[0] == "proto" && slices.ContainsFunc(words, func(w string) bool { return slices.Contains(algorithmWords, w) }) {
			s.err = cmp.Or(s.err, errOneLine)
		}
		s.err = cmp.Or(s.err, s.read(words))
	}
}

// begin begins a state.
func (x *xfrm) begin(p parsed) {
	p.SA = newSA()
	x.cur, x.other = &state{parsed: p}, false
	x.all = append(x.all, x.cur)
}

// headless reports whether a state begins with these words, so that the line before
// them, which has its addresses, is missing: the text begins within a state, or lost it.
func (x *xfrm) headless(words []string) bool {
	switch {
	case x.other || len(words) < 2:
		return false
	case words[0] == "proto" && after(words, "spi") != "":
		return x.cur == nil || x.cur.headed
	}
	return x.cur == nil && slices.Contains(algorithmWords, words[0])
}

var algorithmWords = []string{"aead", "enc", "auth", "auth-trunc"}

var errOneLine = errors.New("its lines have become one; give them as ip prints them")

var errNoEnds = errors.New("the line before it with its addresses, src ADDRESS dst ADDRESS, is missing")

// finish orders and joins the states.
func (x *xfrm) finish() *found {
	f := &found{}
	if x.policies > 0 {
		f.notes = append(f.notes, fmt.Sprintf("line %d: policies are not taken over (%d from here on); SAs are", x.firstAt, x.policies))
	}
	for start := 0; start < len(x.all) && !x.monitor; start++ {
		end := start
		for end < len(x.all) && !x.all[end].command {
			end++
		}
		slices.Reverse(x.all[start:end])
		start = max(start, end)
	}
	for _, s := range x.all {
		if p := s.finish(); !p.expires || p.ended { // soft, it lives on
			f.all = append(f.all, p)
		}
	}
	return f
}

// read takes one line.
func (s *state) read(words []string) error {
	if s.wanted > 0 {
		s.bits(words)
		return nil
	}
	switch words[0] {
	case "src":
		return s.addresses(words)
	case "proto":
		return s.header(words)
	case "replay-window", "flag":
		if n := after(words, "replay-window"); n != "" {
			s.window, _ = strconv.ParseUint(n, 10, 32)
		}
		s.ESN = s.ESN || slices.Contains(words, "esn")
		s.flags(words)
	case "extra-flag":
		s.flags(words)
	case "replay_window":
		s.window, _ = strconv.ParseUint(after(words, "replay_window"), 10, 32)
		s.wanted, _ = strconv.Atoi(after(words, "bitmap-length"))
	case "aead", "enc", "auth", "auth-trunc": // algorithmWords
		return s.algorithm(words)
	case "encap":
		return s.encap(words)
	case "anti-replay", "seq-hi":
		s.numbers(words)
	case "dir":
		return s.Direction.UnmarshalText([]byte(after(words, "dir")))
	case "sel":
		return s.selector(words)
	case "hard":
		s.ended = s.ended || after(words, "hard") == "1"
	case "mark", "output-mark", "coa", "tfcpad", "limit", "ctx":
		s.lost = append(s.lost, words[0])
	case "security":
		s.lost = append(s.lost, "security context")
	case "lifetime", "stats:":
		s.skip = true
	default:
		if s.algorithms && xfrmMore.MatchString(words[0]) {
			return errBroken
		}
		if len(words) > 1 && plainWord.MatchString(strings.ReplaceAll(words[0], "_", "-")) && xfrmWord.MatchString(words[0]+" "+words[1]) {
			s.lost = append(s.lost, words[0]) // if_id, and what ip has learnt since
		}
	}
	return nil
}

// limits notes a hard lifetime among the statistics.
func (s *state) limits(words []string) {
	for i, word := range words[1:] {
		n, _, _ := strings.Cut(word, "(")
		if words[i] == "hard" && n != "" && n != "0" && n != noLimit {
			s.lost = append(s.lost, "limit")
		}
	}
}

const noLimit = "18446744073709551615" // which some versions print for INF

// flags notes flags that are not held. That a selector has no family, and how an AH is
// aligned, is nothing to hold.
func (s *state) flags(words []string) {
	at := slices.IndexFunc(words, func(w string) bool { return w == "flag" || w == "extra-flag" })
	for _, flag := range words[at+1:] {
		if strings.HasPrefix(flag, "(") { // the number that ip -s adds
			continue
		}
		flag = strings.TrimSuffix(flag, "extra_flag") // ip puts no blank before it
		switch {
		case at < 0 || slices.Contains([]string{"", "esn", "af-unspec", "align4", "0"}, flag):
		case plainWord.MatchString(flag):
			s.lost = append(s.lost, "the flag "+flag)
		default:
			s.lost = append(s.lost, "a flag")
		}
	}
}

// plainWord is a word that can be no part of a key.
var plainWord = regexp.MustCompile(`^[a-z]*[g-z][a-z-]*$`)

// xfrmWord is a property with a number, which is no number of a sequence or a policy.
var xfrmWord = regexp.MustCompile(`^[a-z][a-z]*(?:[_-][a-z]+)+ (?:0x)?[0-9a-f]+$`)

// xfrmMore is the rest of a key whose line was broken in two.
var (
	xfrmMore  = regexp.MustCompile(`^[0-9a-fA-F]+$`)
	errBroken = errors.New("the line with its key was broken in two; make it one again")
)

// after is the word after another one, without the comma or the parentheses that ip -s adds.
func after(words []string, word string) string {
	for i := 0; i+1 < len(words); i++ {
		if words[i] == word {
			value, _, _ := strings.Cut(words[i+1], "(")
			return strings.TrimSuffix(value, ",")
		}
	}
	return ""
}

func number(words []string, word string) uint64 {
	n, _ := strconv.ParseUint(after(words, word), 0, 32)
	return n
}

func (s *state) addresses(words []string) error {
	var ends [2]netip.Addr
	var err error
	for i, word := range []string{"src", "dst"} {
		text := after(words, word)
		if ends[i] = address(text); text == "" {
			err = cmp.Or(err, errors.New("expected src ADDRESS dst ADDRESS"))
		} else if !ends[i].IsValid() {
			err = cmp.Or(err, fmt.Errorf("%s: expected an address, not a name, found %s", word, sa.Quote(text)))
		}
	}
	if err == nil || s.removes == flushVerb {
		s.between(ends[0], ends[1])
	}
	return err
}

// between takes addresses over, of which all zeros are any.
func (s *state) between(src, dst netip.Addr) {
	if !dst.IsUnspecified() {
		s.Dst = dst
	}
	switch {
	case src.IsUnspecified() || !src.IsValid():
	case s.Dst.IsValid():
		s.Src = src
	default:
		s.lost = append(s.lost, sourceAlone)
	}
}

// sourceAlone is lost with an SA to any address: a source alone chooses none (RFC 4301, 4.1).
const sourceAlone = "a source without a destination"

// errNoCipher is of an ESP state with an auth alone. Linux has none: without encryption
// it is enc ecb(cipher_null).
var errNoCipher = errors.New("it has no cipher, where ip shows enc ecb(cipher_null) for none; the text may be cut short")

func (s *state) header(words []string) error {
	s.headed = true
	spi, err := strconv.ParseUint(after(words, "spi"), 0, 32)
	if err != nil {
		err = errors.New("expected an SPI of 32 bits")
		if strings.HasPrefix(after(words, "spi"), "$") {
			err = errors.New("expected an SPI of 32 bits, found a variable")
		}
	}
	s.SPI, s.ReqID = uint32(spi), uint32(number(words, "reqid"))
	if proto := after(words, "proto"); s.Protocol.UnmarshalText([]byte(proto)) != nil {
		err = cmp.Or(err, fmt.Errorf("proto %s is not supported", sa.Quote(proto)))
	}
	mode := after(words, "mode")
	if mode == "iptfs" { // a tunnel with another payload (RFC 9347)
		mode = "tunnel"
		s.lost = append(s.lost, "mode iptfs (its packets are checked as a tunnel's, and not opened)")
	}
	if s.Mode.UnmarshalText([]byte(mode)) != nil {
		err = cmp.Or(err, fmt.Errorf("mode %s is not supported", sa.Quote(mode)))
	}
	return err
}

// algorithm reads `aead NAME KEY BITS`, `auth-trunc NAME KEY BITS`,
// `enc NAME KEY` or `auth NAME KEY`. A null cipher has no key; after a key
// ip -s puts "(160 bits)".
func (s *state) algorithm(words []string) error {
	s.algorithms = true
	if slices.Contains(words, "<<Keys") {
		return errors.New("its key is hidden; leave out nokeys, and run ip as root")
	}
	if len(words) < 2 {
		return fmt.Errorf("%s: expected the name of an algorithm", words[0])
	}
	var key sa.Key
	var err error
	rest := words[2:]
	if len(rest) > 0 && len(rest[0]) > 2 && rest[0][0] != '(' {
		switch {
		case strings.HasPrefix(rest[0], "0x"):
			key, err = sa.ParseKey(rest[0])
		case s.command && rest[0][0] != '$': // the characters themselves
			key = sa.NewKey([]byte(rest[0]))
		default:
			err = errors.New("expected the key in hexadecimal behind 0x")
		}
		if err != nil {
			return fmt.Errorf("%s: %w", words[0], err)
		}
	}
	var bits int
	last := len(rest)
	if words[0] == "aead" || words[0] == "auth-trunc" {
		if bits, err = strconv.Atoi(words[len(words)-1]); err != nil {
			return fmt.Errorf("%s: expected the bits of the ICV behind the key", words[0])
		}
		last--
	}
	if last > 1 && rest[last-1] == "bits)" {
		last -= 2
	}
	if last > 1 {
		return fmt.Errorf("%s: expected one word behind the algorithm, which is the key, found %d", words[0], last)
	}
	return s.keyed(words[0] == "aead" || words[0] == "enc", words[1], key, bits)
}

// keyed takes over an algorithm by its name in Linux, with its key and the bits of its
// ICV, 0 where the name alone says them.
func (s *state) keyed(encrypts bool, name string, key sa.Key, bits int) (err error) {
	s.algorithms = true
	switch {
	case encrypts && s.cipher != "":
		return errors.New("it has two ciphers")
	case !encrypts && s.integrity != "" && (name != s.auth || !key.Equal(s.IntegrityKey)):
		return errors.New("it has two integrity algorithms")
	case !encrypts && s.integrity != "" && bits == 0:
		return nil // auth behind auth-trunc, which has the ICV's length
	}
	if encrypts {
		s.EncryptionKey = key
		s.cipher, err = linuxCipher(name, key.Len(), bits)
		return err
	}
	s.IntegrityKey, s.auth = key, name
	s.integrity, err = linuxIntegrity(name, bits)
	s.untold = bits == 0 && s.integrity == "sha256_96"
	return err
}

func (s *state) encap(words []string) error {
	if t := after(words, "type"); t != "espinudp" {
		return fmt.Errorf("encapsulation %s is not supported", sa.Quote(t))
	}
	var ports [2]uint16
	for i, word := range []string{"sport", "dport"} {
		port, err := strconv.ParseUint(after(words, word), 10, 16)
		if err != nil {
			return fmt.Errorf("encapsulation: expected a UDP port, found %s", sa.Quote(after(words, word)))
		}
		ports[i] = uint16(port)
	}
	return s.inUDP(ports[0], ports[1])
}

// inUDP takes over the ports of UDP encapsulation.
func (s *parsed) inUDP(src, dst uint16) error {
	if !sa.Encapsulated(src, dst) {
		return fmt.Errorf("UDP encapsulation is supported with port %d on one side", sa.EncapPort)
	}
	s.EncapSrc, s.EncapDst = encapPort(src), encapPort(dst)
	s.Encap = true
	s.Src = netip.Addr{} // a NAT may change it, and Linux does not look at it
	return nil
}

// encapPort is a port as an SA has it, where 0 stands for sa.EncapPort.
func encapPort(port uint16) uint16 {
	if port == sa.EncapPort {
		return 0
	}
	return port
}

// finish puts the SA together.
func (s *state) finish() parsed {
	if s.err != nil {
		return s.parsed
	}
	if !s.algorithms {
		s.err = errNoKeys
		return s.parsed
	}
	if s.cipher == "" && s.Protocol == sa.ESP {
		s.err = errNoCipher
		return s.parsed
	}
	s.Suite, s.err = sa.ParseSuite(s.Protocol, strings.Trim(s.cipher+"-"+s.integrity, "-"))
	if s.windowOf(s.window); s.untold && !s.command {
		s.doubts = append(s.doubts, "auth hmac(sha256) is taken for ICVs of 96 bits, as in a kernel that has no other; "+
			"an ip that is older than its kernel hides the 128 of IKE (suites with sha256)")
	}
	if len(s.printed) > 0 {
		slices.Reverse(s.printed)
		s.bitmap, s.ring = s.printed, true
	}
	s.Bitmap = s.received()
	return s.parsed
}
