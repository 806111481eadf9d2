package serve

import (
	"cmp"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strconv"

	"tapsec/sa"
)

// Known returns an error if a query asks for anything beyond some names: what is misspelt would
// ask for everything.
func Known(query url.Values, names ...string) error {
	for _, name := range slices.Sorted(maps.Keys(query)) {
		if !slices.Contains(names, name) {
			return fmt.Errorf("expected %s in the query, found %s", cmp.Or(sa.OneOf(names), "nothing"), sa.Quote(name))
		}
	}
	return nil
}

// Number reads a number from a query.
func Number(query url.Values, name string, otherwise, most uint64) (uint64, error) {
	text := query.Get(name)
	if text == "" {
		return otherwise, nil
	}
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil || n > most {
		return 0, fmt.Errorf("%s: expected a number up to %d, found %s", name, most, sa.Quote(text))
	}
	return n, nil
}
