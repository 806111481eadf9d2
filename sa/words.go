package sa

import (
	"fmt"
	"slices"
)

// words are those for a type's values, as configurations have them; a value without one cannot be
// said there.
type words[V ~uint8] []string

var (
	protocols  = words[Protocol]{ESP: "esp", AH: "ah"}
	modes      = words[Mode]{Transport: "transport", Tunnel: "tunnel", Auto: "auto"}
	directions = words[Direction]{Inbound: "in", Outbound: "out"}
	offloads   = words[Offload]{Required: "required", Preferred: "preferred", Never: "never"}
	actions    = words[Action]{Protect: "protect", Bypass: "bypass", Discard: "discard"}
)

// of is the word for a value, or what kind of value it is, and its number.
func (w words[V]) of(v V, kind string) string {
	if int(v) < len(w) && w[v] != "" {
		return w[v]
	}
	return fmt.Sprintf("%s %d", kind, uint8(v))
}

// read sets *v to the value that a word stands for, or says which words there are.
func (w words[V]) read(v *V, word []byte) error {
	var known []string
	for value, one := range w {
		switch one {
		case "":
		case string(word):
			*v = V(value)
			return nil
		default:
			known = append(known, one)
		}
	}
	slices.Sort(known)
	return fmt.Errorf("expected %s, found %s", OneOf(known), Quote(string(word)))
}
