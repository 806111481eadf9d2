package live

import (
	"errors"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"tapsec/internal/inspect"
	"tapsec/sa"
)

// Request says what a reader wants to see.
type Request struct {
	inspect.Filter
	Count  uint64 // frames after which it ends; 0: never
	Snap   int    // at most this many bytes of each frame; 0: all
	Sealed bool   // without what was opened
}

// ParseRequest reads a request from the query of a URL. A list is several values, or one with
// commas.
func ParseRequest(query url.Values) (r Request, err error) {
	asks := []string{"only", "sa", "spi", "host", "count", "snaplen", "headers"}
	for _, name := range slices.Sorted(maps.Keys(query)) {
		if !slices.Contains(asks, name) { // it would show all frames
			return r, fmt.Errorf("expected %s in the query, found %s", sa.OneOf(asks), sa.Quote(name))
		}
	}
	list := func(name string) (all []string) {
		for _, v := range query[name] {
			all = append(all, strings.Split(v, ",")...)
		}
		return all
	}
	if r.Filter, err = inspect.ParseFilter(list("only"), query["sa"], list("spi"), list("host")); err != nil {
		return r, errors.New(strings.TrimPrefix(err.Error(), "--"))
	}
	count, err1 := number(query, "count", 1<<48)
	snap, err2 := number(query, "snaplen", 1<<18)
	r.Count, r.Snap = count, int(snap)
	var err3 error
	if text := query.Get("headers"); text != "" {
		if r.Sealed, err3 = strconv.ParseBool(text); err3 != nil {
			err3 = fmt.Errorf("headers: expected true or false, found %s", sa.Quote(text))
		}
	}
	for _, err := range []error{err1, err2, err3} {
		if err != nil {
			return r, err
		}
	}
	return r, nil
}

func number(query url.Values, name string, most uint64) (uint64, error) {
	text := query.Get(name)
	if text == "" {
		return 0, nil
	}
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil || n > most {
		return 0, fmt.Errorf("%s: expected a number up to %d, found %s", name, most, sa.Quote(text))
	}
	return n, nil
}
