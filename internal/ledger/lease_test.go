package ledger

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"testing"
	"time"
)

// use has a lease's numbers used at a rate for a while, by virtual time: renewed
// as soon as half is used, looked at each second. It returns what was written, and
// how often a number was beyond the lease.
func use(l *lease, used *uint64, now *time.Duration, rate int, while time.Duration) (writes, waits int) {
	const step = 10 * time.Millisecond
	write := func(need uint64) {
		if l.plan(*used, need, *now) {
			l.settle()
			writes++
		}
	}
	due, looked := 0.0, *now
	for end := *now + while; *now < end; *now += step {
		for due += float64(rate) * step.Seconds(); due >= 1; due-- {
			if !l.granted || *used+1 > l.upTo {
				write(*used + 1)
				waits++
			}
			*used++
		}
		if l.half(*used) {
			write(0)
		}
		if *now-looked >= lookAgain {
			looked = *now
			write(0)
		}
	}
	return writes, waits
}

// A lease is about two seconds of traffic, and small where there is little; it is
// written about once a second, and never in a frame's way but while the rate
// grows. Where nothing comes it is given back, and then nothing is written.
func TestLeaseFollowsTheRate(t *testing.T) {
	for _, c := range []struct {
		rate             int
		least, most      uint64
		writes, maxWaits int // per minute
	}{
		{1, leastLease, leastLease, 3, 0},
		{30, leastLease, leastLease, 60, 0},
		{1000, 1000, 3000, 70, 0},
		{100_000, 100_000, 300_000, 70, 0},
	} {
		var l lease
		var used uint64
		var now time.Duration
		_, waits := use(&l, &used, &now, c.rate, 10*time.Second)
		if waits > 10 {
			t.Errorf("%d/s: waited %d times at first", c.rate, waits)
		}
		writes, waits := use(&l, &used, &now, c.rate, time.Minute)
		if l.size < c.least || l.size > c.most || writes > c.writes || waits > c.maxWaits {
			t.Errorf("%d/s: a lease of %d, %d writes in a minute, waited %d times", c.rate, l.size, writes, waits)
		}
		use(&l, &used, &now, 0, 20*time.Second)
		if l.left(used) > 2*leastLease {
			t.Errorf("%d/s, then none: %d numbers would be lost", c.rate, l.left(used))
		}
		if writes, _ := use(&l, &used, &now, 0, time.Minute); writes > 0 {
			t.Errorf("%d/s, then none: %d writes", c.rate, writes)
		}
	}
}

// That the disk cannot be written to is said once, and once more that it can again.
func TestSaidOnce(t *testing.T) {
	var said []error
	l, err := open(statePath(t), func(err error) { said = append(said, err) })
	if err != nil {
		t.Fatal(err)
	}
	defer l.keeper.journal.close()
	full := errors.New("no space left on device")
	l.Counter(newSA(1))
	for _, state := range []error{full, nil} {
		l.keeper.journal.write = func(f *os.File, text []byte) error { return cmp.Or(state, write(f, text)) }
		for range 3 {
			l.keeper.renew(true)
			l.keeper.tell()
		}
	}
	if len(said) != 2 || !errors.Is(said[0], full) || said[1] != nil {
		t.Errorf("said: %v", said)
	}
}

// Where nothing changes, nothing is written; renewing many leases is one write.
func TestOneWrite(t *testing.T) {
	l, err := open(statePath(t), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer l.keeper.journal.close()
	writes := 0
	l.keeper.journal.write = func(*os.File, []byte) error { writes++; return nil }
	for spi := range uint32(1000) {
		l.Inbound(newSA(spi + 1))
		l.Counter(newSA(spi + 1))
	}
	l.keeper.renew(false)
	for range 3 {
		l.keeper.renew(true)
	}
	if writes != 1 {
		t.Errorf("%d writes for SAs that are new", writes)
	}
	for spi := range uint32(1000) {
		for range leastLease/2 + 1 {
			if _, err := l.Counter(newSA(spi + 1)).Next(lastNumber); err != nil {
				t.Fatal(err)
			}
		}
	}
	if writes != 1 {
		t.Errorf("%d writes in the way of frames", writes-1)
	}
	l.keeper.renew(false)
	if writes > 3 { // the file may be written anew: its header, and all else
		t.Errorf("%d writes to renew 1000 leases", writes-1)
	}
}

// The ledger's part of a packet's cost, in memory and on disk.
func BenchmarkPacket(b *testing.B) {
	onDisk, err := Open(statePath(b), nil)
	if err != nil {
		b.Fatal(err)
	}
	defer onDisk.Close()
	for name, l := range map[string]*Ledger{"memory": New(), "disk": onDisk} {
		c, in := l.Counter(newSA(1, gcm)), l.Inbound(newSA(1))
		b.Run("next/"+name, func(b *testing.B) {
			for b.Loop() {
				if _, err := c.Next(lastNumber); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run("accept/"+name, func(b *testing.B) {
			for b.Loop() {
				if v := in.Accept(in.window.Top()+1, 100); v != Fresh {
					b.Fatal(v)
				}
			}
		})
	}
}

// Many SAs that are configured and silent: what starting and ending costs.
func BenchmarkStart(b *testing.B) {
	for _, n := range []uint32{1000, 100_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			path := statePath(b)
			for b.Loop() {
				l, err := Open(path, nil)
				if err != nil {
					b.Fatal(err)
				}
				for spi := range n {
					l.Inbound(newSA(spi + 1))
				}
				if err := l.Close(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// What comes at once, as when a stopped program goes on, is no rate: the lease
// stays a small multiple of it.
func TestLeaseOfABurst(t *testing.T) {
	const rate, burst = 100, 5000
	var l lease
	var used uint64
	var now time.Duration
	use(&l, &used, &now, rate, 10*time.Second)
	for range burst {
		if used++; used > l.upTo || l.half(used) {
			l.plan(used, used, now)
			l.settle()
		}
	}
	if left := l.left(used); left > 8*burst {
		t.Errorf("after %d numbers at once %d would be lost", burst, left)
	}
}
