//go:build linux

package appliance

import (
	"errors"
	"fmt"
	"slices"

	"tapsec/internal/mirror"
	"tapsec/internal/netns"
	"tapsec/keys"
	"tapsec/sa"
)

// mirrored is the Appliance as driven by the mirror of a kernel's SAs. It takes out
// of force only what the mirror put in.
type mirrored struct{ *Appliance }

// openMirror puts the SAs of the kernel in force, if they are to be followed.
func (a *Appliance) openMirror() error {
	if !a.options.Mirror {
		return nil
	}
	if a.adapter == nil || a.host != nil {
		return inputError(errors.New("the kernel's SAs are for a NIC without a transport: that kernel is the transport, and both would seal with the same numbers"))
	}
	return netns.In(a.options.MirrorIn, func() (err error) {
		a.mirror, err = mirror.Open(mirrored{a}, a.log)
		return err
	})
}

// Add puts an SA in force, if the NIC can hold it.
func (a mirrored) Add(s *sa.SA) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	switch known := a.roster.id(s.ID()); {
	case known == nil:
	case known.origin == ofMirror && a.adapter.sad.Handle(s.ID()) != 0:
		return nil
	case known.origin == ofMirror: // a reload left no room for it
		a.roster.remove(known.bundle)
	default:
		return fmt.Errorf("there is %s already, of the %s", known.SA, known.origin)
	}
	s.Name = keys.Name(s, func(name string) bool { return a.roster.name(name) != nil })
	if known := a.roster.name(s.Name); known != nil {
		return fmt.Errorf("%s has its name already", known.SA)
	}
	bundle := []*sa.SA{s}
	if err := a.adapter.takes(bundle, 0); err != nil {
		return err
	}
	return a.put([][]*sa.SA{bundle}, ofMirror)
}

// Delete takes it out again; by then it may be gone, or the user's.
func (a mirrored) Delete(s *sa.SA) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if m := a.roster.id(s.ID()); m != nil && m.origin == ofMirror {
		_ = a.drop(m) // only a transport fails, and there is none
	}
}

// mirroredBeside are the mirror's SAs that may stay in force beside the user's. Of
// two with the same name or identity, the user's stays.
func (a *Appliance) mirroredBeside(others []*sa.SA) []*sa.SA {
	mirrored := a.roster.sas(by(ofMirror))
	if len(mirrored) == 0 {
		return nil
	}
	names, ids := map[string]bool{}, map[sa.ID]bool{}
	for _, s := range others {
		names[s.Name], ids[s.ID()] = true, true
	}
	return slices.DeleteFunc(mirrored, func(s *sa.SA) bool { return names[s.Name] || ids[s.ID()] })
}
