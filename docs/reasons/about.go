package reasons

import (
	"fmt"
	"slices"
	"strings"

	"tapsec/internal/outbound"
	"tapsec/status"
	"tapsec/transport"
)

// About is everything there is to say about a reason, or about all with that short name; empty
// if there is none.
func About(name string) string {
	var pages []string
	for qualified, sentence := range sentences() {
		if _, short, _ := strings.Cut(qualified, "/"); name == qualified || name == short {
			pages = append(pages, fmt.Sprintf("%s: %s\n\n%s", qualified, sentence, Page(qualified)))
		}
	}
	slices.Sort(pages)
	return strings.Join(pages, "\n")
}

// Names are all that About knows, sorted: short names, and those behind their owner.
func Names() []string {
	var names []string
	for qualified := range sentences() {
		_, short, _ := strings.Cut(qualified, "/")
		names = append(names, qualified, short)
	}
	slices.Sort(names)
	return slices.Compact(names)
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
