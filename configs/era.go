package configs

import (
	"slices"
	"time"

	"tapsec/sa"
)

// Era is a configuration that held up to a time; the zero Until has no end.
type Era struct {
	*Config
	Until time.Time
}

// Over reports whether the era has ended by a time; with the zero time, which is unknown,
// whether another era follows.
func (e *Era) Over(t time.Time) bool {
	return !e.Until.IsZero() && (t.IsZero() || !t.Before(e.Until))
}

// Era is the configuration with the SAs of a time, if a text told that some replaced others,
// and when. The zero time stands for the latest.
func (c *Config) Era(t time.Time) Era {
	e := Era{Config: c}
	then := map[sa.ID]*sa.SA{}
	for _, old := range c.Former { // oldest first
		if old.Until.IsZero() || t.IsZero() || !t.Before(old.Until) {
			continue
		}
		if then[old.ID()] == nil {
			then[old.ID()] = old.SA
		}
		if e.Until.IsZero() || old.Until.Before(e.Until) {
			e.Until = old.Until
		}
	}
	if len(then) > 0 {
		as := *c
		as.SAs = slices.Clone(c.SAs)
		for i, s := range as.SAs {
			if old := then[s.ID()]; old != nil {
				as.SAs[i] = old
			}
		}
		e.Config = &as
	}
	return e
}

// Others are SAs that a text tells of and that are not in force at first, or no more: those that
// replace others, of every era, and those with another key of the same identity.
func (c *Config) Others() (all []*sa.SA) {
	for _, old := range c.Former {
		for _, s := range c.SAs {
			if !old.Until.IsZero() && s.ID() == old.ID() && !slices.Contains(all, s) {
				all = append(all, s)
			}
		}
	}
	for _, s := range c.Former {
		all = append(all, s.SA)
	}
	return all
}
