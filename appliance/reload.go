//go:build linux

package appliance

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"

	"tapsec/configs"
	"tapsec/internal/event"
	"tapsec/sa"
)

// Reload takes SAs, policy and offload switches from the configuration as it is now. SAs
// added at run time stay, and so do the kernel's, unless the file has them. What cannot
// change while frames flow stays as it was, and the log names it. A mistake is logged and
// changes nothing.
//
// Files may not answer, such as a pipe or one of a server that is gone: only other reloads wait for them.
func (a *Appliance) Reload() error {
	a.loading.Lock()
	defer a.loading.Unlock()
	next, err := a.options.Load()
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.closed {
		return err
	}
	return a.reload(next, err)
}

// InForce is the SA of the file that is in force and says the same as s; nil if there is
// none. A Load that takes it for what it has read has unchanged SAs in memory once.
func (a *Appliance) InForce(s *sa.SA) *sa.SA {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.roster.inForce(s)
}

// reload does so with what was read, or with the error; mu is held.
func (a *Appliance) reload(next *configs.Config, err error) error {
	if err == nil {
		err = next.Take(&configs.Config{SAs: a.roster.sas(by(ofSocket))})
	}
	if err == nil {
		a.roster.share(next.SAs)
		next.SAs = append(next.SAs, a.mirroredBeside(next.SAs)...)
		for _, field := range fixed(a.config, next) {
			a.log.Warn("this change needs a restart", "field", field)
		}
		if err = keepFixed(next, a.config); err == nil {
			err = a.adopt(next)
		}
	}
	if err != nil {
		a.refuse(err)
		return inputError(err)
	}
	went, came := changes(a.roster, next.SAs)
	a.config = next
	a.enlist(next)
	if a.mirror != nil {
		a.mirror.Resync()
	}
	a.warn(next)
	for _, one := range []struct {
		kind event.Kind
		sas  string
	}{{event.SADeleted, went}, {event.SAAdded, came}} {
		if one.sas != "" {
			a.tell(one.kind, slog.String("sas", one.sas))
		}
	}
	a.tell(event.Reloaded, append(a.shape(), slog.String("went", went), slog.String("came", came))...)
	if a.host != nil {
		a.host.undecided(a.host.division, next)
		a.host.forgets()
	}
	return nil
}

// adopt puts a configuration in force, in the transport before the NIC, so that the NIC
// opens nothing that the transport does not know.
func (a *Appliance) adopt(next *configs.Config) error {
	if a.host != nil {
		if err := a.host.adopt(next); err != nil {
			return err
		}
	}
	if a.adapter != nil {
		return a.adapter.Offload(next)
	}
	return nil
}

// reread is Reload if the logs of daemons tell of new SAs, or of SAs that have ended.
// Anything else they say changes nothing.
func (a *Appliance) reread() {
	a.loading.Lock()
	defer a.loading.Unlock()
	next, err := a.options.Load()
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.closed || err == nil && a.areOfFile(next.SAs) {
		return
	}
	_ = a.reload(next, err) // it has logged what is wrong
}

// areOfFile reports whether the file's SAs in force are exactly these.
func (a *Appliance) areOfFile(sas []*sa.SA) bool {
	for _, s := range sas {
		if m := a.roster.id(s.ID()); m == nil || m.origin != ofFile || !m.Same(s) {
			return false
		}
	}
	return len(a.roster.sas(by(ofFile))) == len(sas)
}

// changes names the SAs that a reload removes and adds, for the log. An SA with another
// key is another SA.
func changes(old *roster, next []*sa.SA) (went, came string) {
	var gone, more []string
	for _, s := range next {
		if m := old.id(s.ID()); m != nil && m.Same(s) {
			m.stays = true
		} else {
			more = append(more, s.Name)
		}
	}
	for _, m := range old.order {
		if !m.gone && !m.stays {
			gone = append(gone, m.Name)
		}
		m.stays = false
	}
	return list(gone), list(more)
}

// fixed names the fields in which two configurations differ although a running appliance
// cannot change them.
func fixed(old, next *configs.Config) []string {
	var fields []string
	check := func(field string, same bool) {
		if !same {
			fields = append(fields, field)
		}
	}
	check("profile", old.Profile.Name == next.Profile.Name)
	check("sa_capacity", old.SACapacity == next.SACapacity)
	check("queues", old.Queues == next.Queues)
	check("wire", old.Wire == next.Wire)
	check("host", old.Host == next.Host)
	check("on_failure", old.OnFailure == next.OnFailure)
	check("policy", !losesPolicy(old, next))
	return fields
}

// losesPolicy reports whether next has no rules although there were some. A truncated file
// looks like that, and must not let clear packets in.
func losesPolicy(old, next *configs.Config) bool { return len(old.Policy) > 0 && len(next.Policy) == 0 }

// keepFixed gives next the fixed fields of the running configuration. The error names an
// SA that only the file's profile has room for.
func keepFixed(next, old *configs.Config) error {
	next.Profile, next.SACapacity, next.Queues = old.Profile, old.SACapacity, old.Queues
	next.Wire, next.Host, next.OnFailure = old.Wire, old.Host, old.OnFailure
	if losesPolicy(old, next) {
		next.Policy = old.Policy
	}
	for _, s := range next.Unoffloaded() {
		if s.Offload == sa.Required {
			return fmt.Errorf("%s does not fit into the running profile %s of capacity %d; restart to change it", s, old.Profile.Name, old.Capacity())
		}
	}
	return nil
}

// refuse logs every mistake of a refused configuration.
func (a *Appliance) refuse(err error) {
	var mistakes configs.Errors
	if !errors.As(err, &mistakes) {
		a.log.Error("reload", "err", err)
		if a.options.Confine && errors.Is(err, fs.ErrPermission) {
			a.log.Error("the running program is confined to the directories of the files it started with: restart it to read others")
		}
	}
	for _, p := range mistakes {
		a.log.Error(p.Msg, "at", fmt.Sprintf("%s:%d:%d", p.File, p.Line, p.Col), "field", p.Field, "text", p.Text)
	}
	a.log.Error("reload refused: the SAs and switches in force stay")
}
