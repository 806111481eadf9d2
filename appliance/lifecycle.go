//go:build linux

package appliance

import (
	"cmp"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"slices"

	"tapsec/configs"
	"tapsec/control"
	"tapsec/internal/event"
	"tapsec/sa"
)

// lifecycle is the Appliance as driven through the control socket (contract, Lifecycle).
type lifecycle struct{ *Appliance }

// Add puts SAs in force, all or none: in the transport first, so that the NIC opens
// nothing that the transport does not know.
func (a lifecycle) Add(sas []*sa.SA) ([]control.SA, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, s := range sas {
		if known := cmp.Or(a.roster.id(s.ID()), a.roster.name(s.Name)); known != nil {
			return nil, &control.Error{Text: fmt.Sprintf("%s cannot be added: there is %s already", s, known.SA), Code: control.Exists}
		}
	}
	all := (&configs.Config{SAs: sas}).AllBundles()
	if err := a.put(all, ofSocket); err != nil {
		return nil, err
	}
	added := []control.SA{}
	for _, bundle := range all {
		for _, s := range bundle {
			added = append(added, a.show(a.roster.id(s.ID())))
		}
	}
	return added, nil
}

// put puts bundles in force, all or none; mu is held.
func (a *Appliance) put(all [][]*sa.SA, by origin) error {
	nic, err := a.place(all)
	if err != nil {
		return err
	}
	if a.host != nil {
		if err := a.host.add(a.config, all); err != nil {
			return err
		}
	}
	if a.adapter != nil {
		if err := a.adapter.sad.AddAll(nic); err != nil {
			if a.host != nil {
				err = errors.Join(err, a.host.stopSealing(all))
				a.host.stopOpening(all)
			}
			return err
		}
	}
	for _, bundle := range all {
		a.roster.add(bundle, by)
	}
	a.tell(event.SAAdded, slog.String("sas", listed(slices.Concat(all...))))
	return nil
}

// place returns the bundles that the NIC is to hold. The error says why it cannot hold
// one that requires offload.
func (a *Appliance) place(bundles [][]*sa.SA) (nic [][]*sa.SA, err error) {
	if a.adapter == nil {
		return nil, nil
	}
	for _, wish := range []sa.Offload{sa.Required, sa.Preferred} {
		for _, bundle := range bundles {
			if bundle[0].Offload != wish {
				continue
			}
			switch err := a.adapter.takes(bundle, len(nic)); {
			case err == nil:
				nic = append(nic, bundle)
			case wish == sa.Required:
				return nil, err
			}
		}
	}
	return nic, nil
}

// find returns the SA that a reference names.
func (a *Appliance) find(which control.Ref) (*member, error) {
	m := a.roster.id(which.ID)
	if which.Name != "" {
		m = a.roster.name(which.Name)
	}
	if m == nil {
		return nil, sa.ErrUnknown
	}
	return m, nil
}

// Delete takes an SA, and the other half of its bundle, out of force, or only off the
// NIC. The NIC comes first, and frames whose SA it has already looked up are finished.
func (a lifecycle) Delete(which control.Ref, nicOnly bool) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	m, err := a.find(which)
	if err != nil {
		return err
	}
	switch {
	case nicOnly && a.adapter == nil:
		return errNoNIC
	case nicOnly && !a.adapter.release(m.SA):
		return sa.ErrUnknown
	case nicOnly && a.host != nil:
		return nil
	}
	return a.drop(m)
}

var errNoNIC = &control.Error{Text: "there is no NIC in this process", Code: control.NotHere}

// drop takes the bundle of a member out of force; mu is held.
func (a *Appliance) drop(m *member) error {
	bundles := [][]*sa.SA{m.bundle}
	if a.host != nil {
		if err := a.host.stopSealing(bundles); err != nil {
			return err
		}
	}
	if a.adapter != nil {
		a.adapter.release(m.SA)
	}
	if a.host != nil {
		a.host.stopOpening(bundles)
	}
	a.roster.remove(m.bundle)
	a.tell(event.SADeleted, slog.String("sas", listed(m.bundle)))
	return nil
}

// Update tells the NIC the high half of an SA's numbers.
func (a lifecycle) Update(which control.Ref, high uint32) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	m, err := a.find(which)
	if a.adapter == nil {
		err = errNoNIC
	}
	if err != nil {
		return err
	}
	return a.adapter.sad.Update(a.adapter.sad.Handle(m.ID()), high)
}

// Flush takes all SAs out of force.
func (a lifecycle) Flush() (n int, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	sas := a.roster.sas(anyMember)
	if a.adapter != nil {
		a.adapter.sad.Flush()
	}
	if a.host != nil {
		none := *a.config
		none.SAs = nil
		if err := a.host.adopt(&none); err != nil {
			return 0, err
		}
	}
	latest := a.roster.latest
	a.roster = newRoster()
	a.roster.latest = latest
	if len(sas) > 0 {
		a.tell(event.SADeleted, slog.String("sas", listed(sas)))
	}
	return len(sas), nil
}

// List returns a page of the SAs.
func (a lifecycle) List(after uint64, limit int) control.Page {
	a.mu.Lock()
	defer a.mu.Unlock()
	page := control.Page{SAs: []control.SA{}}
	members, more := a.roster.after(after, limit)
	for _, m := range members {
		page.SAs = append(page.SAs, a.show(m))
	}
	if more {
		page.Next = members[limit-1].place
	}
	return page
}

// Show returns one SA.
func (a lifecycle) Show(name string) (control.SA, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	m := a.roster.name(name)
	if m == nil {
		return control.SA{}, fmt.Errorf("%s: %w", sa.Quote(name), sa.ErrUnknown)
	}
	return a.show(m), nil
}

func (a *Appliance) show(m *member) control.SA {
	s := control.SA{Name: m.Name, ID: m.ID(), Mode: m.Mode.String(), Direction: m.Direction.String(), Suite: m.Suite.Name, ESN: m.ESN,
		Encap: m.Encap, Offload: m.Offload.String(), Origin: m.origin.String(), Cursor: m.place}
	for _, other := range m.bundle {
		if other != m.SA {
			s.Partner = other.Name
		}
	}
	if a.adapter != nil {
		s.Handle = a.adapter.sad.Handle(m.ID())
		s.Offloaded = s.Handle != 0
	}
	return s
}

// Export returns the SAs with the sequence numbers they have reached, so that a
// successor repeats none.
func (a lifecycle) Export() iter.Seq[*sa.SA] {
	return func(yield func(*sa.SA) bool) {
		for place, more := uint64(0), true; more; {
			var some []*sa.SA
			some, place, more = a.exported(place)
			for _, s := range some {
				if !yield(s) {
					return
				}
			}
		}
	}
}

// exported is some SAs after a place, the place of the last of them, and whether there are more.
func (a lifecycle) exported(after uint64) (some []*sa.SA, place uint64, more bool) {
	const atATime = 100
	a.mu.Lock()
	defer a.mu.Unlock()
	members, more := a.roster.after(after, atATime)
	for _, m := range members {
		now := *m.SA
		if a.host != nil {
			a.host.numbers(a.config, &now)
		} else if a.adapter != nil && m.ESN && m.Direction != sa.Outbound {
			if t := a.adapter.sad.Find(m.ID()).Top; t > now.Seq {
				now.Seq, now.Bitmap = t, nil
			}
		}
		if now.ESN && (now.Seq|now.OSeq) != 0 {
			now.SeqHigh = 0 // the numbers contain it
		}
		some, place = append(some, &now), m.place
	}
	return some, place, more
}

// Switch enables or disables offload until the next reload.
func (a lifecycle) Switch(s control.Switches) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.adapter == nil {
		return errNoNIC
	}
	active, ah, esp := a.adapter.sad.Switches()
	for _, one := range []struct{ now, want *bool }{{&active, s.Active}, {&ah, s.AH}, {&esp, s.ESP}} {
		if one.want != nil {
			*one.now = *one.want
		}
	}
	a.adapter.sad.Switch(ah, esp)
	a.adapter.sad.Activate(active)
	a.tell(event.OffloadSwitched, slog.Bool("active", active), slog.Bool("ah", ah), slog.Bool("esp", esp))
	return nil
}

// Capabilities returns the capabilities of the NIC in force.
func (a lifecycle) Capabilities() (c control.Capabilities, err error) {
	if a.adapter == nil {
		return c, errNoNIC
	}
	sad := a.adapter.sad
	profile := sad.Profile()
	c.Profile, c.Flags, c.Algorithms = profile.Name, profile.Advertised(), profile.Keywords()
	c.Bundles, c.Capacity = sad.Room()
	c.UnderPressure = sad.UnderPressure()
	c.Active, c.AH, c.ESP = sad.Switches()
	return c, nil
}

// listed names SAs, for the log.
func listed(sas []*sa.SA) string {
	var names []string
	for _, s := range sas {
		names = append(names, s.Name)
	}
	return list(names)
}

// enlist makes a configuration's SAs the roster. SAs that are not in the file keep their
// origin.
func (a *Appliance) enlist(c *configs.Config) {
	if a.roster == nil {
		a.roster = newRoster()
	}
	a.roster.replace(c.AllBundles())
}
