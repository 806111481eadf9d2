package keys

import (
	"cmp"
	"encoding/hex"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"tapsec/sa"
)

// How a command for setkey that makes an SA begins (setkey(8)), and an address with a port.
var (
	setkeyAdd = regexp.MustCompile(`(?m)^\s*(?:setkey>\s*)?(?:add|update)\s+(?:-[46n]+\s+)*\S+(?:\s+\[\d+\])?\s+\S+(?:\s+\[\d+\])?\s+` +
		`(?:ah|ah-old|esp|esp-old|esp-udp|ipcomp)\s+(?:0[xX][0-9a-fA-F]+|\d+)\b`)
	setkeyGone = regexp.MustCompile(`^\s*(?:delete|deleteall|flush)\b`)
	setkeyEnd  = regexp.MustCompile(`^([^\[\]]+?)(?:%\w+)?(?:\[(\d+)\])?$`)
)

// commands reads the commands that begin in line i, and gives the number of the line in which the
// last of them ends.
func (r *setkeyReader) commands(lines []string, i int) int {
	number := i + 1
	words := setkeyWords(lines[i])
	for words[len(words)-1] != ";" && i+1 < len(lines) && !setkeyAdd.MatchString(lines[i+1]) {
		i++
		words = append(words, setkeyWords(lines[i])...)
	}
	for len(words) > 0 {
		end := slices.Index(words, ";")
		if end < 0 {
			k := &keyed{parsed: parsed{SA: newSA(), line: number, err: errors.New("expected ; behind the command; the text may be cut short")}}
			r.added = append(r.added, k.parsed)
			break
		}
		if at, does := setkeyVerb(words[:end]); does == addVerb {
			r.added = append(r.added, setkeyCommand(words[at+1:end], number))
		} else if does != noVerb {
			r.added = append(r.added, setkeyRemoval(words[at+1:end], number, does))
		}
		words = words[end+1:]
	}
	return i
}

// setkeyWords splits a line into words, of which ; is one. Strings keep the quote that they begin
// with.
func setkeyWords(line string) (words []string) {
	for {
		line = strings.TrimLeft(line, " \t\\")
		if line == "" || line[0] == '#' {
			return words
		}
		n := 1
		switch line[0] {
		case ';':
		case '"':
			if n = strings.IndexByte(line[1:], '"') + 1; n == 0 {
				return append(words, line)
			}
			words, line = append(words, line[:n]), line[n+1:]
			continue
		default:
			if n = strings.IndexAny(line, " \t;#\""); n < 0 {
				n = len(line)
			}
		}
		words, line = append(words, line[:n]), line[n:]
	}
}

// setkeyCommand makes an SA of the words behind add: addresses, protocol, SPI, options.
func setkeyCommand(words []string, line int) parsed {
	for len(words) > 0 && words[0][0] == '-' {
		words = words[1:]
	}
	for i := 1; i <= 2 && i < len(words); i++ {
		if words[i][0] == '[' { // "192.0.2.1 [4500]"
			words = slices.Concat(words[:i-1], []string{words[i-1] + words[i]}, words[i+1:])
		}
	}
	if len(words) < 4 {
		return parsed{SA: newSA(), line: line, err: errors.New("expected add SRC DST PROTOCOL SPI")}
	}
	spi, err := strconv.ParseUint(words[3], 0, 32)
	if err != nil {
		err = errors.New("expected an SPI of 32 bits")
	}
	var ends []string
	for _, word := range words[:2] {
		m := append(setkeyEnd.FindStringSubmatch(word), "", "", "")
		if !address(m[1]).IsValid() {
			err = cmp.Or(err, fmt.Errorf("expected an address, not a name, found %s", sa.Quote(word)))
		}
		ends = append(ends, m[1:3]...)
	}
	mode := "any"
	if at := slices.Index(words, "-m"); at >= 0 && at+1 < len(words) {
		mode = words[at+1]
	}
	k := newKeyed(line, uint32(spi), words[2], mode, ends)
	k.numbered, k.err = true, cmp.Or(err, k.err)
	k.options(words[4:])
	return k.finish()
}

// options reads what follows the SPI. Each option has its values behind it.
func (k *keyed) options(words []string) {
	for len(words) > 0 {
		end := 1
		for end < len(words) && words[end][0] != '-' {
			end++
		}
		option, values := words[0], words[1:end]
		words = words[end:]
		switch option {
		case "-E", "-A":
			k.algorithm(option == "-E", values)
		case "-r":
			k.windowBytes(strings.Join(values, ""))
		case "-esn":
			k.ESN = true
		case "-f":
			k.padding(strings.Join(values, ""))
		case "-lh", "-ls", "-bh", "-bs":
			k.lost = append(k.lost, "a lifetime")
		case "-m", "-u", "-natt_mtu":
		default:
			k.err = cmp.Or(k.err, fmt.Errorf("the option %s is not supported", sa.Quote(option)))
		}
	}
}

// padding reads an option on what an SA's packets are padded with, or on its numbers.
func (k *keyed) padding(option string) {
	switch option {
	case "zero-pad", "random-pad":
		k.PadCheck = false
	case "seq-pad", "nocyclic-seq":
	default:
		k.lost = append(k.lost, "the option -f cyclic-seq, or one that is unknown")
	}
}

// setkeyVerb finds what a command does to SAs, behind a prompt perhaps, and where it says so.
func setkeyVerb(words []string) (at int, does verb) {
	for at, word := range words[:min(len(words), 2)] {
		for _, v := range verbs {
			if v.name == word {
				return at, v.verb
			}
		}
	}
	return 0, noVerb
}

// setkeyRemoval makes of the words behind delete, deleteall or flush what is removed:
// addresses, protocol, SPI; or a protocol alone.
func setkeyRemoval(words []string, line int, does verb) parsed {
	p := parsed{SA: newSA(), line: line, removes: does}
	if len(words) > 2 {
		p.Src, p.Dst, words = address(words[0]), address(words[1]), words[2:]
	}
	if len(words) > 0 {
		_ = p.Protocol.UnmarshalText([]byte(words[0])) // of another one it removes no SA of ours, nor all
	}
	if len(words) > 1 {
		spi, _ := strconv.ParseUint(words[1], 0, 32)
		p.SPI = uint32(spi)
	}
	return p
}

// algorithm takes the name of an algorithm and its key: digits after 0x, or characters in quotes.
func (k *keyed) algorithm(cipher bool, values []string) {
	if len(values) < 1 || len(values) > 2 {
		k.err = cmp.Or(k.err, fmt.Errorf("expected an algorithm and its key, found %d words", len(values)))
		return
	}
	digits := ""
	if len(values) == 2 {
		digits = values[1]
	}
	if text, quoted := strings.CutPrefix(digits, `"`); quoted {
		digits = hex.EncodeToString([]byte(text))
	} else if digits != "" && !strings.HasPrefix(strings.ToLower(digits), "0x") {
		k.err = cmp.Or(k.err, errors.New("expected the key in hexadecimal behind 0x, or in quotes"))
		return
	}
	k.key(cipher, values[0], digits)
}
