package sa

import "fmt"

// Direction says which way an SA's packets go, seen from one host.
type Direction uint8

// The directions. The zero value leaves it to the addresses.
const (
	AnyDirection Direction = iota
	Inbound
	Outbound
)

// String is in, out or any.
func (d Direction) String() string {
	switch d {
	case AnyDirection:
		return "any"
	case Inbound:
		return "in"
	case Outbound:
		return "out"
	}
	return fmt.Sprintf("direction(%d)", uint8(d))
}

// UnmarshalText reads "in" or "out".
func (d *Direction) UnmarshalText(b []byte) error {
	return pick(d, string(b), map[string]Direction{"in": Inbound, "out": Outbound})
}
