package sa

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
	if d == AnyDirection {
		return "any"
	}
	return directions.of(d, "direction")
}

// UnmarshalText reads "in" or "out".
func (d *Direction) UnmarshalText(b []byte) error { return directions.read(d, b) }
