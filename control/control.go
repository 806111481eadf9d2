// Package control is a running NIC or transport as another program sees it: the
// documents and requests of its control socket, and a client for them. The socket
// speaks HTTP with JSON (docs/control.md); openapi.yaml describes all of it.
//
//	nic, err := control.Dial("/run/tapsec.sock")
//	added, err := nic.Add(sas) // all of them or none
//	err = nic.Delete(control.RefOf(sas[0]), false)
//
// An error is what the NIC said: it wraps sa.ErrFull, sa.ErrUnknown or sa.ErrExists, or is
// an *Error whose Code and Missing say more.
package control

import (
	_ "embed" // openapi.yaml
	"encoding/json"
	"errors"
	"math"
	"time"

	"tapsec/sa"
)

// OpenAPI is the description of the socket, in YAML.
//
//go:embed openapi.yaml
var OpenAPI []byte

// Code names an error.
type Code string

// The codes.
const (
	Full          Code = "full"           // no room for the bundles
	Unknown       Code = "unknown"        // no such SA, or no such path
	Exists        Code = "exists"         // there is an SA of that name or identity
	BeyondProfile Code = "beyond-profile" // Missing says what the NIC lacks
	BadRequest    Code = "bad-request"
	NotHere       Code = "not-here"    // this process lacks what that needs
	Forbidden     Code = "forbidden"   // neither root nor the user who started the program
	NotAllowed    Code = "not-allowed" // the path takes another method
	Busy          Code = "busy"        // too many follow events already
	Failed        Code = "failed"      // anything else
)

// ofSA are the errors of package sa that have a code.
var ofSA = map[Code]error{Full: sa.ErrFull, Unknown: sa.ErrUnknown, Exists: sa.ErrExists}

// Error is an answer that is an error.
type Error struct {
	Text    string `json:"error"` // one sentence
	Code    Code   `json:"code"`
	Missing string `json:"missing,omitempty"` // with BeyondProfile: flags or a suite's keyword
}

func (e *Error) Error() string { return e.Text }

// Unwrap returns the error that package sa has for the code.
func (e *Error) Unwrap() error {
	return ofSA[e.Code]
}

// ErrorOf is an error as the socket sends it.
func ErrorOf(err error) *Error {
	var said *Error
	var lacks *sa.Unsupported
	if errors.As(err, &said) {
		return said
	}
	e := &Error{Text: err.Error(), Code: Failed}
	if errors.As(err, &lacks) {
		e.Code, e.Missing = BeyondProfile, lacks.Missing
	}
	for _, code := range []Code{Exists, Unknown, Full} {
		if errors.Is(err, ofSA[code]) {
			e.Code = code
		}
	}
	return e
}

// Index is the answer to GET /.
type Index struct {
	Documents []string `json:"documents"` // GET
	Actions   []string `json:"actions"`   // POST
}

// Ref says which SA is meant, by its name or by its identity.
type Ref struct {
	Name string
	ID   sa.ID // if there is no name
}

// RefOf refers to an SA by its identity, which is the same on both sides of a socket.
func RefOf(s *sa.SA) Ref { return Ref{ID: s.ID()} }

// String is the name, or the identity.
func (r Ref) String() string {
	if r.Name != "" {
		return r.Name
	}
	return r.ID.String()
}

// MarshalJSON writes {"name": ...}, or the four fields of the identity.
func (r Ref) MarshalJSON() ([]byte, error) {
	if r.Name != "" {
		return json.Marshal(map[string]string{"name": r.Name})
	}
	return json.Marshal(r.ID)
}

// SA is what can be seen of an SA in force. There is no key in it.
type SA struct {
	Name string `json:"name"`
	sa.ID
	Mode      string `json:"mode"`
	Direction string `json:"direction"` // in, out, or any if addresses decide
	Suite     string `json:"suite"`
	ESN       bool   `json:"esn"`
	Encap     bool   `json:"encap"`             // in UDP
	Partner   string `json:"partner,omitempty"` // name of the other half of its bundle
	Offload   string `json:"offload"`           // required, preferred or never
	Offloaded bool   `json:"offloaded"`         // the NIC holds it
	Handle    uint32 `json:"handle"`            // the NIC's; 0 if it does not hold the SA
	Origin    string `json:"origin"`            // file, socket if it was added at run time, or mirror if it is the kernel's
	Cursor    uint64 `json:"cursor"`            // its place in the list
}

// Page is a part of the list of SAs.
type Page struct {
	SAs  []SA   `json:"sas"`
	Next uint64 `json:"next,omitempty"` // the cursor to continue after; 0 at the end
}

// Switches of receive offload; nil leaves one as it is.
type Switches struct {
	Active *bool `json:"active,omitempty"`
	AH     *bool `json:"ah,omitempty"`
	ESP    *bool `json:"esp,omitempty"`
}

// Capabilities are those of the NIC that are in force.
type Capabilities struct {
	Profile       string          `json:"profile"`
	Flags         map[string]bool `json:"flags"`      // all that exist, as NDIS names them
	Algorithms    []string        `json:"algorithms"` // keywords of suites
	Capacity      int             `json:"capacity"`   // bundles; 0 sets no bound
	Bundles       int             `json:"bundles"`    // held now
	UnderPressure bool            `json:"under_pressure"`
	Active        bool            `json:"active"` // receive offload
	AH            bool            `json:"ah"`
	ESP           bool            `json:"esp"`
}

// Added is the answer to an add: what is in force now.
type Added struct {
	SAs []SA `json:"sas"`
}

// Flushed is the answer to a flush.
type Flushed struct {
	SAs int `json:"sas"` // deleted
}

// Counter is one entry in the list of counters.
type Counter struct {
	Name    string   `json:"name"`
	Kind    string   `json:"kind"` // counter, which only rises, gauge or histogram
	Unit    string   `json:"unit"` // empty if it has none
	Help    string   `json:"help"` // one sentence
	Samples []Sample `json:"samples"`
}

// Sample is a number of a counter.
type Sample struct {
	Labels map[string]string `json:"labels,omitempty"`
	Value  float64           `json:"value"` // for a histogram, how many were measured

	*Histogram
}

// Histogram is the distribution of what was measured.
type Histogram struct {
	Sum     float64  `json:"sum"`
	Buckets []Bucket `json:"buckets"` // only Value includes what exceeds the last bound
}

// Bucket is how many were at most Bound, including those of earlier buckets.
type Bucket struct {
	Bound float64 `json:"le"`
	Count uint64  `json:"count"`
}

// Quantile is the bound that a part of all, such as 0.99, did not exceed; infinite if that
// is beyond the last bound.
func (s *Sample) Quantile(part float64) float64 {
	for _, b := range s.Buckets {
		if float64(b.Count) >= part*s.Value {
			return b.Bound
		}
	}
	return math.Inf(1)
}

// Counters is the answer to GET /counters.
type Counters struct {
	Counters []Counter `json:"counters"`
}

// Event is something that happened to the appliance or to an SA of it (docs/events.md).
type Event struct {
	ID     uint64         `json:"id"`   // consecutive, from 1
	Time   time.Time      `json:"time"` // in UTC
	Event  string         `json:"event"`
	Text   string         `json:"text"` // one sentence, the same for all events of that name
	Fields map[string]any `json:"fields"`
}

// Events is the answer to GET /events, oldest first.
type Events struct {
	Events []Event `json:"events"`
}
