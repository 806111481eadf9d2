package keys

import (
	"cmp"
	"fmt"
	"net/netip"
	"regexp"
	"strconv"
	"strings"

	"tapsec/sa"
)

// What RouterOS's `/ip ipsec installed-sa print detail` says about SAs: flags, of which E is ESP and A is AH, then words
// NAME=VALUE. A key in quotes may go on in the next line.
var (
	routerOSFlags = regexp.MustCompile(`\b([A-Z]+)\s+spi=(?:0x)?([0-9A-Fa-f]+)\s+(?:direction=\w+\s+)?src-address=`)
	routerOSWord  = regexp.MustCompile(`\b([a-z-]+)=("[^"]*"|[^\s"]+)`)
)

// parseRouterOS reads the SAs in their order. The text has no modes, and after an address the
// port of an SA in UDP.
func parseRouterOS(text string) *found {
	f := &found{}
	all := routerOSFlags.FindAllStringSubmatchIndex(text, -1)
	for i, m := range all {
		end := len(text)
		if i+1 < len(all) {
			end = all[i+1][0]
		}
		words := map[string]string{}
		for _, w := range routerOSWord.FindAllStringSubmatch(text[m[3]:end], -1) {
			if words[w[1]] != "" && strings.HasSuffix(w[1], "-algorithm") {
				words["twice"] = w[1]
			}
			words[w[1]] = cmp.Or(words[w[1]], strings.Join(strings.Fields(strings.Trim(w[2], `"`)), ""))
		}
		f.all = append(f.all, routerOSSA(text[m[2]:m[3]], words, 1+strings.Count(text[:m[0]], "\n")))
	}
	return f
}

func routerOSSA(flags string, words map[string]string, line int) parsed {
	spi, err := strconv.ParseUint(strings.TrimPrefix(words["spi"], "0x"), 16, 32)
	var ends []string
	proto := map[bool]string{true: "ah", false: "esp"}[strings.Contains(flags, "A")]
	for _, name := range []string{"src-address", "dst-address"} {
		host, port := words[name], ""
		if a, bad := netip.ParseAddrPort(host); bad == nil {
			host, port, proto = a.Addr().String(), strconv.Itoa(int(a.Port())), "esp-udp"
		} else if err == nil && !address(host).IsValid() {
			err = fmt.Errorf("%s: expected an address, found %s", name, sa.Quote(host))
		}
		ends = append(ends, host, port)
	}
	k := newKeyed(line, uint32(spi), proto, "any", ends)
	k.setkey, k.larval, k.ended, k.err = false, words["state"] == "larval", words["state"] == "dead", cmp.Or(err, k.err)
	if bits, _ := strconv.Atoi(words["enc-key-size"]); len(words["enc-key"])*4 != bits && words["enc-key-size"] != "" {
		k.err = cmp.Or(k.err, fmt.Errorf("expected an enc-key of %d hexadecimal digits, found %d characters", bits/4, len(words["enc-key"])))
	}
	if twice := words["twice"]; twice != "" {
		k.err = cmp.Or(k.err, fmt.Errorf("it has two words %s=; the line between them with spi= is missing", twice))
	}
	for _, kind := range []string{"enc", "auth"} {
		if name := words[kind+"-algorithm"]; name != "" {
			k.key(kind == "enc", cmp.Or(fortiNames[name], name), words[kind+"-key"])
		}
	}
	return k.finish()
}
