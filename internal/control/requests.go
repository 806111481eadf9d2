package control

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/netip"
	"reflect"
	"strings"

	"tapsec/configs"
	"tapsec/control"
	"tapsec/internal/serve"
	"tapsec/keys"
	"tapsec/sa"
)

// How many SAs a page of the list has by default, and at most.
const (
	defaultLimit = 100
	maxLimit     = 1000
)

func (s *Server) list(r *http.Request) (any, error) {
	after, err1 := serve.Number(r.URL.Query(), "after", 0, 1<<63-1)
	limit, err2 := serve.Number(r.URL.Query(), "limit", defaultLimit, maxLimit)
	if err := cmp.Or(err1, err2); err != nil {
		return nil, refuse(control.BadRequest, "/sas: %v", err)
	}
	return s.config.SAs.List(after, int(max(limit, 1))), nil
}

func (s *Server) show(r *http.Request) (any, error) { return s.config.SAs.Show(r.PathValue("name")) }

func (s *Server) counters(r *http.Request) (any, error) {
	all, err := s.config.SAs.Counters(r.URL.Query().Get("sa"))
	return control.Counters{Counters: all}, err
}

// export shows keys only if asked to.
func (s *Server) export(r *http.Request) (any, error) {
	fields, keysAsked := keys.HiddenFields, r.URL.Query().Get("keys")
	switch keysAsked {
	case "", "false":
	case "true":
		fields = keys.Fields
	default:
		return nil, refuse(control.BadRequest, "/export: keys: expected true or false, found %s", sa.Quote(keysAsked))
	}
	return func(long *longAnswer) {
		legacy := false
		io.WriteString(long.w, "{\n  \"sas\": ")
		long.list("  ", func(yield func(any) bool) {
			for s := range s.config.SAs.Export() {
				legacy = legacy || s.Suite.Legacy()
				if !yield(fields(s)) {
					return
				}
			}
		})
		if legacy {
			io.WriteString(long.w, ",\n  \"allow_legacy\": true")
		}
		long.end("\n}")
	}, nil
}

// add takes the SAs of a configuration. A mistake is reported with its field.
func (s *Server) add(r *http.Request) (any, error) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, refuse(control.BadRequest, "/add: %v", err)
	}
	c, err := configs.ParseRequest(body)
	if mistakes := (configs.Errors)(nil); errors.As(err, &mistakes) {
		first := mistakes[0]
		if err = errors.New(first.Msg); first.Field != "" {
			err = fmt.Errorf("%s: %w", first.Field, err)
		}
		if len(mistakes) > 1 {
			err = fmt.Errorf("%w (and %d more mistakes)", err, len(mistakes)-1)
		}
	}
	if err == nil && len(c.SAs) == 0 {
		err = errors.New("there is no SA in it")
	}
	if err != nil {
		return nil, refuse(control.BadRequest, "/add: %v", err)
	}
	added, err := s.config.SAs.Add(c.SAs)
	return control.Added{SAs: added}, err
}

// which refers to an SA in a request.
type which struct {
	Name     *string      `json:"name"`
	Protocol *sa.Protocol `json:"protocol"`
	SPI      *sa.SPI      `json:"spi"`
	Dst      *netip.Addr  `json:"dst"` // "" where the SA has none
	Src      *netip.Addr  `json:"src"` // likewise
}

// ref makes the reference. The error names what is missing, or one too many.
func (w *which) ref() (control.Ref, error) {
	const missing = "%q is missing, %s"
	switch none := w.Protocol == nil && w.SPI == nil && w.Dst == nil && w.Src == nil; {
	case w.Name != nil && none:
		return control.Ref{Name: *w.Name}, nil
	case w.Name != nil:
		return control.Ref{}, errors.New("expected a name, or protocol, spi, dst and src, found both")
	case w.Protocol == nil:
		return control.Ref{}, fmt.Errorf(missing, "protocol", "esp or ah")
	case w.SPI == nil:
		return control.Ref{}, fmt.Errorf(missing, "spi", `for instance "0x1001"`)
	case w.Dst == nil:
		return control.Ref{}, fmt.Errorf(missing, "dst", `the SA's destination, or "" if it has none`)
	case w.Src == nil:
		return control.Ref{}, fmt.Errorf(missing, "src", `the SA's source, or "" if it has none`)
	}
	return control.Ref{ID: sa.ID{Protocol: *w.Protocol, SPI: *w.SPI, Dst: *w.Dst, Src: *w.Src}}, nil
}

func (s *Server) delete(r *http.Request) (any, error) {
	var c struct {
		which
		NICOnly bool `json:"nic_only"`
	}
	err := decode(r, &c)
	ref, err2 := c.ref()
	if err = cmp.Or(err, err2); err != nil {
		return nil, refuse(control.BadRequest, "/delete: %v", err)
	}
	return nil, about(ref, s.config.SAs.Delete(ref, c.NICOnly))
}

func (s *Server) update(r *http.Request) (any, error) {
	var c struct {
		which
		High *uint32 `json:"high"`
	}
	err := decode(r, &c)
	ref, err2 := c.ref()
	if err = cmp.Or(err, err2); err == nil && c.High == nil {
		err = errors.New(`"high" is missing, the high half of the sequence numbers`)
	}
	if err != nil {
		return nil, refuse(control.BadRequest, "/update: %v", err)
	}
	return nil, about(ref, s.config.SAs.Update(ref, *c.High))
}

func (s *Server) flush(r *http.Request) (any, error) {
	if err := decode(r, &struct{}{}); err != nil {
		return nil, refuse(control.BadRequest, "/flush: %v", err)
	}
	n, err := s.config.SAs.Flush()
	return control.Flushed{SAs: n}, err
}

func (s *Server) offload(r *http.Request) (any, error) {
	var c control.Switches
	err := decode(r, &c)
	if err == nil && c == (control.Switches{}) {
		err = errors.New("expected active, ah or esp, true or false")
	}
	if err != nil {
		return nil, refuse(control.BadRequest, "/offload: %v", err)
	}
	return nil, s.config.SAs.Switch(c)
}

// about adds to an error which SA it is about.
func about(which control.Ref, err error) error {
	if errors.Is(err, sa.ErrUnknown) {
		return refuse(control.Unknown, "%s: %v", which, sa.ErrUnknown)
	}
	return err
}

// decode reads one object, and refuses anything after it.
func decode(r *http.Request, v any) error {
	d := json.NewDecoder(r.Body)
	d.DisallowUnknownFields()
	if err := d.Decode(v); errors.Is(err, io.EOF) {
		return errors.New("the body is empty; expected an object, {} at least")
	} else if err != nil {
		return inJSON(err)
	}
	switch _, err := d.Token(); {
	case errors.Is(err, io.EOF):
		return nil
	case errors.Is(err, io.ErrUnexpectedEOF):
		return errors.New("the body ends before its length says")
	}
	return errors.New("there is more after the object")
}

// inJSON says what is wrong in a body without the names of Go.
func inJSON(err error) error {
	var wrong *json.UnmarshalTypeError
	if !errors.As(err, &wrong) {
		return fmt.Errorf("%s; docs/control.md has an example", strings.TrimPrefix(err.Error(), "json: "))
	}
	expected := map[reflect.Kind]string{reflect.Struct: "an object", reflect.Bool: "true or false", reflect.String: "text",
		reflect.Uint32: fmt.Sprintf("a number from 0 to %d", uint32(math.MaxUint32))}[wrong.Type.Kind()]
	expected = cmp.Or(expected, "text")
	if wrong.Field != "" {
		expected = wrong.Field + ": expected " + expected
	} else {
		expected = "expected " + expected
	}
	return fmt.Errorf("%s, found %s", expected, wrong.Value)
}
