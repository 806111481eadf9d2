package event

import (
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

func number(n uint64) slog.Attr { return slog.Uint64("frames", n) }

// A listener that keeps up gets each event once, in order, whenever it began.
func TestFollow(t *testing.T) {
	var l Log
	const events, writers = 4000, 4
	var all sync.WaitGroup
	for range writers {
		all.Go(func() {
			for n := range uint64(events / writers) {
				l.Tell(SAFailed, time.Now(), number(n))
			}
		})
	}
	place, got, lost := l.Place(0), uint64(0), uint64(0)
	begin := place
	for place < events {
		some, more := l.After(place)
		for _, e := range some {
			if e.Event == Lost.String() {
				lost += e.Fields["events"].(uint64)
			} else if got++; e.ID != place+1 {
				t.Fatalf("event %d behind %d", e.ID, place)
			}
			place = e.ID
		}
		if len(some) == 0 {
			<-more
		}
	}
	all.Wait()
	if begin+got+lost != events {
		t.Errorf("begun at %d, %d events and %d lost: expected %d", begin, got, lost, events)
	}
}

// One that does not has lost what is no longer kept, and is told how much.
func TestLost(t *testing.T) {
	var l Log
	if some, _ := l.After(7); len(some) > 0 || l.Place(Kept) != 0 {
		t.Errorf("before the first event there are %v", some)
	}
	const more = 42
	for n := range uint64(Kept + more) {
		l.Tell(SAFailed, time.Now(), number(n+1))
	}
	some, _ := l.After(0)
	if len(some) != 1+Kept || some[0].Event != "events-lost" || some[0].Fields["events"] != uint64(more) || some[0].ID != more || some[1].ID != more+1 {
		t.Fatalf("%d events, the first %+v", len(some), some[0])
	}
	if line := Line(&some[0]); !strings.HasSuffix(line, " events-lost events=42") {
		t.Error(line)
	}
	if some, _ := l.After(l.Place(3)); len(some) != 3 || some[2].Fields["frames"] != uint64(Kept+more) {
		t.Errorf("the last three are %v", some)
	}
	if some, _ := l.After(l.Place(1 << 40)); len(some) != Kept {
		t.Errorf("of all, %d are kept, expected %d", len(some), Kept)
	}
}

// A field that the list does not know is a mistake of the program.
func TestFields(t *testing.T) {
	defer func() {
		if said := fmt.Sprint(recover()); said != `event: engine has no field "frames"` {
			t.Error(said)
		}
	}()
	new(Log).Tell(Engine, time.Now(), number(1))
}

// Values are as in the log: quoted where they would be read as something else.
func TestLine(t *testing.T) {
	e := Reloaded.of(time.Date(2026, 1, 2, 3, 4, 5, 6e6, time.Local), []slog.Attr{slog.String("came", "a\x1b b"), slog.String("went", ""),
		slog.Int("sas", 12345678), slog.Bool("offload", true), slog.String("wire", "wire0")})
	if line, want := Line(&e), `03:04:05.006 reloaded wire=wire0 sas=12345678 offload=true came="a\x1b b"`; line != want {
		t.Errorf("%s\nexpected\n%s", line, want)
	}
	e.Fields["sas"] = float64(12345678) // as it comes from the socket
	if line := Line(&e); !strings.Contains(line, "sas=12345678 ") {
		t.Error(line)
	}
}

// weather says by names and fields what a Watch told.
type weather struct{ told []string }

func (w *weather) tell(k Kind, fields ...slog.Attr) {
	w.told = append(w.told, fmt.Sprint(k, fields))
}

func (w *weather) want(t *testing.T, when string, told ...string) {
	t.Helper()
	if !slices.Equal(w.told, told) {
		t.Errorf("%s: told %q, expected %q", when, w.told, told)
	}
	w.told = nil
}

// A storm begins once and ends once, and each SA fails for the first time once.
func TestStorm(t *testing.T) {
	var told weather
	w, now := Watch{Tell: told.tell}, time.Now()
	second := func(failures ...Failure) {
		now = now.Add(time.Second)
		w.Second(now, failures)
	}
	web := func(frames uint64, first bool) Failure { return Failure{"web", "nic/esp-icv", frames, first} }
	second()
	second(web(99, true))
	told.want(t, "few", "sa-failed [sa=web reason=nic/esp-icv frames=99]")
	second(web(60, false), Failure{"site", "nic/ah-icv", 40, true})
	told.want(t, "together many", "sa-failed [sa=site reason=nic/ah-icv frames=40]", "storm-began [sa=web reason=nic/esp-icv frames=100]")
	second(web(1000, false))
	for range stormPause - 1 {
		second(web(1, false))
	}
	second(web(100, false)) // not over yet
	for range stormPause - 1 {
		second()
	}
	told.want(t, "it goes on")
	second(web(2, false))
	told.want(t, "it ends", fmt.Sprintf("storm-ended [frames=%d seconds=6]", 100+1000+stormPause-1+100+2))
	for range 2 * stormPause {
		second()
	}
	told.want(t, "nothing")
	second(web(100, false))
	told.want(t, "another", "storm-began [sa=web reason=nic/esp-icv frames=100]")
}

// However many SAs fail, and for however long, so many wait, and the others are counted.
func TestManyKeepFailing(t *testing.T) {
	var told, left uint64
	w := Watch{}
	w.Tell = func(k Kind, fields ...slog.Attr) {
		if k != SAFailed {
			return
		}
		told++
		for _, f := range fields {
			if f.Key == "suppressed" {
				left += f.Value.Uint64()
			}
		}
	}
	const seconds, each = 200, 10 * firsts
	n := 0
	for range seconds {
		var failures []Failure
		for range each {
			failures = append(failures, Failure{fmt.Sprint("sa", n), "nic/esp-icv", 1, true})
			n++
		}
		w.Second(time.Now(), failures)
		if len(w.waiting) > mostWaiting || cap(w.waiting) > 4*mostWaiting {
			t.Fatalf("%d are waiting, with room for %d", len(w.waiting), cap(w.waiting))
		}
	}
	for len(w.waiting) > 0 {
		w.Second(time.Now(), nil)
	}
	if told+left+w.left != uint64(n) || left == 0 {
		t.Errorf("%d are told of and %d counted, of %d", told, left, n)
	}
}

// However many SAs fail at once, all are told of, and few in a second.
func TestManyFail(t *testing.T) {
	var told weather
	w := Watch{Tell: told.tell}
	var failures []Failure
	for n := range 3*firsts - 1 {
		failures = append(failures, Failure{fmt.Sprint("sa", n), "nic/esp-icv", 1, true})
	}
	w.Second(time.Now(), failures)
	for _, n := range []int{firsts, firsts, firsts - 1, 0} {
		if len(told.told) != n {
			t.Errorf("%d are told of, expected %d", len(told.told), n)
		}
		told.told = nil
		w.Second(time.Now(), nil)
	}
}
