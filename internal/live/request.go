package live

import (
	"cmp"
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"

	"tapsec/internal/inspect"
	"tapsec/internal/serve"
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
	if err := serve.Known(query, "only", "sa", "spi", "host", "count", "snaplen", "headers"); err != nil {
		return r, err
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
	count, err1 := serve.Number(query, "count", 0, 1<<48)
	snap, err2 := serve.Number(query, "snaplen", 0, 1<<18)
	r.Count, r.Snap = count, int(snap)
	var err3 error
	if text := query.Get("headers"); text != "" {
		if r.Sealed, err3 = strconv.ParseBool(text); err3 != nil {
			err3 = fmt.Errorf("headers: expected true or false, found %s", sa.Quote(text))
		}
	}
	return r, cmp.Or(err1, err2, err3)
}
