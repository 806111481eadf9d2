package pipeline

import (
	"fmt"
	"net/netip"
	"sync/atomic"

	"tapsec/ah"
	"tapsec/esp"
	"tapsec/sa"
	"tapsec/status"
)

// SAD is what the modelled NIC holds, shared by its queues: the offloaded SAs with their
// ciphers, the capabilities in force, and the switches of receive offload. All may change
// while frames flow.
type SAD struct {
	profile sa.Profile
	workers int
	table   *sa.Table[inbound]
	marks   Marks // nil: those of the table
	resting bool  // SAs are keyed by their first packets, since most get none

	inactive, ahOff, espOff atomic.Bool
	together                atomic.Bool // an SA has had a cipher that gains by bursts
}

// inbound is what package esp or ah derived from an SA's keys; one of the two is set.
type inbound struct {
	esp *esp.Inbound
	ah  *ah.Inbound
}

func (in inbound) rest() {
	if in.ah != nil {
		in.ah.Rest()
		return
	}
	in.esp.Rest()
}

type entry = sa.Entry[inbound]

// Marks remembers the ESN marks of SAs that have left the database.
type Marks interface {
	Of(*sa.SA) *sa.Mark       // the mark it had, or a new one
	Dropped(*sa.SA, *sa.Mark) // the SA was deleted
}

// NewSAD makes an empty database for a profile and a number of workers (one
// Pipeline each). Offload is active, for AH and ESP.
func NewSAD(profile sa.Profile, workers int) *SAD {
	return &SAD{profile: profile, workers: workers, table: sa.NewTable[inbound](profile.Capacity)}
}

// Remember makes SAs get their ESN marks from marks, which may remember an SA. It must be
// called before anything else.
func (d *SAD) Remember(marks Marks) { d.marks = marks }

// Add offloads one SA, or the AH and the ESP SA of a bundle in this order, all
// or nothing, and returns the first one's handle. An error names the SA and
// what the profile lacks, what is wrong with its keys, or is sa.ErrBundle,
// sa.ErrFull or sa.ErrExists.
func (d *SAD) Add(bundle ...*sa.SA) (handle uint32, err error) {
	entries, err := d.entries(bundle)
	if err != nil {
		return 0, err
	}
	if err := d.table.Add(entries...); err != nil {
		return 0, err
	}
	return entries[0].Handle, nil
}

// AddAll is Add for several bundles, all or nothing.
func (d *SAD) AddAll(bundles [][]*sa.SA) error {
	all, err := d.allEntries(bundles)
	if err != nil {
		return err
	}
	return d.table.AddAll(all)
}

// Replace makes bundles the whole content of the database in one step. An unchanged SA
// keeps its handle and ESN mark. On an error nothing has changed.
func (d *SAD) Replace(bundles [][]*sa.SA) error {
	all, err := d.allEntries(bundles)
	if err != nil {
		return err
	}
	return d.table.Replace(all)
}

func (d *SAD) allEntries(bundles [][]*sa.SA) ([][]*entry, error) {
	all := make([][]*entry, 0, len(bundles))
	for _, b := range bundles {
		entries := d.table.Standing(b)
		if entries == nil {
			var err error
			if entries, err = d.entries(b); err != nil {
				return nil, err
			}
		}
		all = append(all, entries)
	}
	return all, nil
}

func (d *SAD) entries(bundle []*sa.SA) ([]*entry, error) {
	var entries []*entry
	if err := d.Supports(bundle); err != nil {
		return nil, err
	}
	for _, s := range bundle {
		e, err := d.entry(s)
		if err != nil {
			return nil, err
		}
		e.InUDP = s.InUDP() && len(bundle) == 1 && d.profile.Has(sa.UDPTransport|sa.UDPTunnel)
		entries = append(entries, e)
	}
	return entries, nil
}

// entry prepares an SA. One that is there already, unchanged, keeps its ciphers and its
// mark.
func (d *SAD) entry(s *sa.SA) (*entry, error) {
	if old := d.table.Find(s.ID()); old != nil && old.SA.Unchanged(s) {
		return &entry{SA: s, Value: old.Value, Mark: old.Mark}, nil
	}
	in, err := d.key(s)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", s, err)
	}
	e := &entry{SA: s, Value: in}
	if d.marks != nil {
		e.Mark = d.marks.Of(s)
	}
	return e, nil
}

// Supports reports whether the profile covers a bundle. The error names the SA, and
// wraps an *sa.Unsupported.
func (d *SAD) Supports(bundle []*sa.SA) error {
	for i, s := range bundle {
		var partner *sa.SA
		if len(bundle) == 2 {
			partner = bundle[1-i]
		}
		if err := d.profile.Supports(s, partner); err != nil {
			return fmt.Errorf("%s: %w", s, err)
		}
	}
	return nil
}

func (d *SAD) key(s *sa.SA) (in inbound, err error) {
	if s.Protocol == sa.AH {
		in.ah, err = ah.NewInbound(s, d.workers)
	} else if in.esp, err = esp.NewInbound(s, d.workers); err == nil && in.esp.Gains() {
		d.together.Store(true)
	}
	if err == nil && d.resting {
		in.rest()
	}
	return in, err
}

// Delete takes an SA, and its bundle partner, out of the database. The error is
// sa.ErrUnknown.
func (d *SAD) Delete(handle uint32) error {
	gone := d.table.Entry(handle)
	if err := d.table.Delete(handle); err != nil || d.marks == nil || gone == nil {
		return err
	}
	d.marks.Dropped(gone.SA, gone.Mark)
	if p := gone.Partner; p != nil {
		d.marks.Dropped(p.SA, p.Mark)
	}
	return nil
}

// Update gives the SA the high half of its ESN (sa.Mark.Update). The error is
// sa.ErrUnknown.
func (d *SAD) Update(handle, high uint32) error { return d.table.Update(handle, high) }

// Handle finds the handle of an SA, 0 if it is not in the database.
func (d *SAD) Handle(id sa.ID) uint32 {
	if e := d.table.Find(id); e != nil {
		return e.Handle
	}
	return 0
}

// Mark is the ESN mark of an SA, nil if it is not in the database.
func (d *SAD) Mark(id sa.ID) *sa.Mark {
	if e := d.table.Find(id); e != nil {
		return e.Mark
	}
	return nil
}

// Flush empties the database.
func (d *SAD) Flush() { d.table.Flush() }

// Holding is one offloaded SA as List shows it.
type Holding struct {
	*sa.SA
	Handle uint32
	Top    uint64 // highest number authenticated on an ESN SA
	Unused uint32 // seconds since the last authentic packet, or since it was added
	Failed uint64 // frames
}

func (d *SAD) holding(e *entry) Holding {
	failed, _ := d.table.Failed(e)
	return Holding{e.SA, e.Handle, e.Mark.T(), d.table.LastUse(e), failed}
}

// Failing calls f with each SA whose frames have failed, and why the latest did. Neither
// frames nor changes wait for it.
func (d *SAD) Failing(f func(h Holding, why status.Reason)) {
	d.table.Each(func(e *entry) {
		if frames, why := d.table.Failed(e); frames > 0 {
			f(d.holding(e), status.Reason(why))
		}
	})
}

// Asked calls f with each SA whose deletion frames have asked for (SaDeleteReq) since
// the database has been under pressure.
func (d *SAD) Asked(f func(Holding)) {
	d.table.Each(func(e *entry) {
		if d.table.Asked(e) {
			f(d.holding(e))
		}
	})
}

// List returns the offloaded SAs in no particular order.
func (d *SAD) List() []Holding {
	var all []Holding
	for _, e := range d.table.List() {
		all = append(all, d.holding(e))
	}
	return all
}

// Holding returns the offloaded SA of a handle; its SA is nil if there is none.
func (d *SAD) Holding(handle uint32) (none Holding) {
	if e := d.table.Entry(handle); e != nil {
		return d.holding(e)
	}
	return none
}

// Find returns an offloaded SA; its handle is 0 if it is not in the database.
func (d *SAD) Find(id sa.ID) (none Holding) {
	if e := d.table.Find(id); e != nil {
		return d.holding(e)
	}
	return none
}

// Name is the name of the SA that a record is about; empty if it is gone.
func (d *SAD) Name(r *status.Record, dst, src netip.Addr, encap bool) string {
	m := d.table.Lookup(r.SPI, dst, src, encap)
	for _, e := range []*entry{m.ESP, m.AH} {
		if e != nil && e.Handle == r.Handle {
			return e.Name
		}
	}
	return ""
}

// Room reports how many bundles the database holds; capacity 0 sets no bound.
func (d *SAD) Room() (held, capacity int) { return d.table.Bundles(), d.profile.Capacity }

// Count is the number of SAs that the database holds.
func (d *SAD) Count() int { return d.table.Count() }

// Profile is what the NIC advertises.
func (d *SAD) Profile() sa.Profile { return d.profile }

// UnderPressure reports whether the database asks for SAs to be deleted.
func (d *SAD) UnderPressure() bool { return d.table.UnderPressure() }

// Tick is called once a second, by one goroutine.
func (d *SAD) Tick() { d.table.Tick() }

// Switches returns what Activate and Switch have set.
func (d *SAD) Switches() (active, ah, esp bool) {
	return !d.inactive.Load(), !d.ahOff.Load(), !d.espOff.Load()
}

// Activate switches receive offload as a whole.
func (d *SAD) Activate(on bool) { d.inactive.Store(!on) }

// Switch switches the offload of each protocol.
func (d *SAD) Switch(ah, esp bool) {
	d.ahOff.Store(!ah)
	d.espOff.Store(!esp)
}

// ForcePressure makes the NIC ask for the deletion of every SA that a frame uses
// (SaDeleteReq), as it does by itself when the table is nearly full.
func (d *SAD) ForcePressure(on bool) { d.table.ForcePressure(on) }

// off reports whether a protocol is switched off.
func (d *SAD) off(protocol sa.Protocol) bool {
	if protocol == sa.AH {
		return d.ahOff.Load()
	}
	return d.espOff.Load()
}
