package soak

import (
	"math/rand/v2"
	"slices"
	"strings"
)

// action is one thing that is done to the program or around it.
type action struct {
	name    string
	weight  int
	ends    bool   // it ends a process
	touches string // what no two actions of a step may share; of the same host, if none is named
	// do does it and returns how to put it right again, or nil.
	do func(c *campaign, p *program, r *rand.Rand) func()
}

// disturbing costs datagrams while it lasts.
var disturbing = []action{
	{"flap stack", 3, false, "link", flapStack},
	{"flap wire", 2, false, "the-wire", flapWire},
	{"flush", 3, false, "link", flush},
	{"rename", 2, false, "link process", rename},
	{"stop", 2, false, "process", stop},
	{"terminate", 3, true, "process file", restart(sigTERM)},
	{"kill", 3, true, "process file", restart(sigKILL)},
	{"unplug", 1, true, "link process file", unplug},
	{"drop SAs", 3, false, "file process", dropSAs},
	{"cut file", 3, false, "file process", cutFile},
	{"fill disk", 1, false, "the-disk", fillDisk},
	{"deaf", 3, false, "log", listenHow(deaf)},
	{"crowd", 1, false, "control", crowd},
	{"strangers", 1, false, "file process", strangers},
}

// harmless costs nothing.
var harmless = []action{
	{"unload", 2, false, "file control", unload},
	{"rekey", 3, false, "file-a file-b control-a control-b", rekey},
	{"strangers", 2, false, "file", strangers},
	{"garbage", 2, false, "file", garbage},
	{"same file", 1, false, "file", sameFile},
	{"deaf", 3, false, "log", listenHow(deaf)},
	{"slow", 1, false, "log", listenHow(slow)},
	{"crowd", 2, false, "control", crowd},
	{"transfer", 3, false, "the-stream", transfer},
	{"twin", 1, false, "process", twin},
}

// act does one of the actions on one of the hosts, unless another action touches
// the same. The sequence of random numbers does not depend on the outcome.
func (c *campaign) act(from []action, touched map[string]bool) (undo func()) {
	a, number := c.pick(from), c.random.IntN(2)
	r := rand.New(rand.NewPCG(c.random.Uint64(), 0))
	if a == nil {
		return nil
	}
	p := c.programs[number]
	for thing := range strings.FieldsSeq(a.touches) {
		if !strings.Contains(thing, "-") {
			thing += "-" + hostNames[number]
		}
		if touched[thing] {
			return nil
		}
		defer func() { touched[thing] = true }()
	}
	c.log("%s %s", a.name, hostNames[number])
	c.mu.Lock()
	c.report.Actions[a.name]++
	c.mu.Unlock()
	return a.do(c, p, r)
}

// lifetime is the number of steps in a row in which processes are ended now and
// then, and then the number in which they live on, so that what they accumulate
// shows.
const lifetime = 32

// pick draws an action by its weight; nil where there is none.
func (c *campaign) pick(from []action) *action {
	var lots []*action
	for i := range from {
		a := &from[i]
		lives := a.ends && c.report.Steps/lifetime%2 == 1
		if !lives && (len(c.o.Only) == 0 || slices.Contains(c.o.Only, a.name)) {
			lots = append(lots, slices.Repeat([]*action{a}, a.weight)...)
		}
	}
	if len(lots) == 0 {
		return nil
	}
	return lots[c.random.IntN(len(lots))]
}
