package reasons

import (
	"fmt"
	"slices"
	"strings"

	"tapsec/internal/outbound"
	"tapsec/status"
	"tapsec/transport"
)

// About is everything there is to say about a reason, or about all with that short name or that
// CryptoStatus; empty if there is none.
func About(name string) string {
	var pages []string
	for qualified, sentence := range sentences() {
		_, short, _ := strings.Cut(qualified, "/")
		if name == qualified || name == short || slices.Contains(withStatus(name), qualified) {
			pages = append(pages, fmt.Sprintf("%s: %s\n\n%s", qualified, sentence, Page(qualified)))
		}
	}
	slices.Sort(pages)
	return strings.Join(pages, "\n")
}

// Names are all that About knows, sorted: short names, those behind their owner, and the statuses of
// failures.
func Names() []string {
	var names []string
	for qualified := range sentences() {
		_, short, _ := strings.Cut(qualified, "/")
		names = append(names, qualified, short)
	}
	for c := status.GenericError; c <= status.InvalidProtocol; c++ {
		names = append(names, c.String())
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// withStatus are the qualified names of the NIC's reasons for a status of failures.
func withStatus(name string) (all []string) {
	for _, r := range status.Reasons() {
		for _, p := range []status.Portion{status.NoPortion, status.TunnelPortion, status.TransportPortion} {
			if c := r.Code(p); c != status.Success && c.String() == name {
				all = append(all, r.Qualified())
			}
		}
	}
	return all
}

// sentences are those of all reasons, by qualified name.
func sentences() map[string]string {
	all := map[string]string{}
	for _, r := range status.Reasons() {
		all[r.Qualified()] = r.Sentence()
	}
	for _, r := range transport.Reasons() {
		all[r.Qualified()] = r.Sentence()
	}
	for _, r := range outbound.Reasons() {
		all[r.Qualified()] = r.Sentence()
	}
	return all
}
