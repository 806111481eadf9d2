package conformance

import (
	"fmt"
	"io"
	"slices"

	"tapsec/keys"
	"tapsec/sa"
)

// WriteConfig prints the setup's NIC as a configuration of tapsec, keys included, for NICs
// that are prepared from outside. It cannot express that an SA was deleted (Delete). Errors
// are the writer's.
func (l *Setup) WriteConfig(w io.Writer) error {
	_, err := fmt.Fprintf(w, "# The NIC for setup %s of the conformance cases. The keys are public.\nprofile: %s\noffload: {active: %v, ah: true, esp: %v}\n",
		l.Name, l.Profile.Name, !l.Inactive, !l.ESPOff)
	if err == nil && l.Pressure { // the NIC asks for deletions if no more SAs fit
		_, err = fmt.Fprintf(w, "sa_capacity: %d\n", len(l.Bundles))
	}
	if err != nil {
		return err
	}
	return keys.WriteYAML(w, l.SAs())
}

// SAs gives the setup's SAs, bundled or not.
func (l *Setup) SAs() []*sa.SA { return slices.Concat(l.Bundles...) }
