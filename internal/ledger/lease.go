package ledger

import (
	"math"
	"time"
)

// The size of a lease in numbers: enough that the disk is not written to all the time, and
// so little that not much is lost when a program is killed. It grows and shrinks by a
// factor of sixteen at most, since a burst is not a rate.
const (
	leastLease = 64
	mostLease  = 1 << 22
	growth     = 16
	ahead      = 2 * time.Second
	shortest   = ahead / 8 // least time over which a rate is measured: a burst after a pause is not one
)

// lease is how far numbers may be used: as far as the disk says that they may have been.
//
//	exact --grant--> granted --half used, or a number beyond--> granted, higher
//	  ^                 |    --much too large for the rate----> granted, lower
//	  +------close------+
//
// Numbers up to upTo may be used freely. A higher upTo counts once it is written; a lower
// one counts at once, and is written then.
type lease struct {
	granted bool   // the disk has upTo, and not exactly what was used
	upTo    uint64 //
	pending uint64 // the upTo that is being written
	dirty   bool   // something other than numbers is to be written
	waiting bool   // for the keeper
	watched bool   // by the keeper, since it is larger than the least

	size, from uint64 // of the latest grant, and the highest number used then
	at         time.Duration
}

// left is how many numbers may still be used.
func (l *lease) left(used uint64) uint64 { return l.upTo - min(used, l.upTo) }

// half reports, once, whether it is time for another lease.
func (l *lease) half(used uint64) bool { return !l.waiting && l.left(used) < l.size/2 }

// plan sets pending, and reports whether there is something to be written: number need is
// beyond the lease, half of it is used, or it is far larger than the rate asks for. used is
// the highest number used.
func (l *lease) plan(used, need uint64, now time.Duration) bool {
	size := l.fitting(used, now)
	switch {
	case !l.granted, need > l.upTo, l.half(used):
		l.pending = sum(max(used, need), size)
	case l.left(used) > 2*size && now-l.at >= time.Second:
		l.upTo = sum(used, size)
		l.pending = l.upTo
	case l.dirty:
		l.pending = max(l.upTo, used)
		return true
	default:
		return false
	}
	l.size, l.from, l.at = size, max(used, need), now
	return true
}

// settle makes what was written the lease.
func (l *lease) settle() {
	l.granted, l.upTo, l.pending, l.dirty = true, max(l.upTo, l.pending), 0, false
}

// fitting is the size for the rate since the latest grant.
func (l *lease) fitting(used uint64, now time.Duration) uint64 {
	if l.size == 0 {
		return leastLease
	}
	elapsed := uint64(max(now-l.at, shortest))
	numbers := min(used-min(l.from, used), math.MaxUint32)
	return min(max(numbers*uint64(ahead)/elapsed, l.size/growth, leastLease), l.size*growth, mostLease)
}

// small reports whether the lease is too small to take anything back.
func (l *lease) small(used uint64) bool { return l.left(used) <= 2*leastLease }

// sum is a + b, or the last number of all.
func sum(a, b uint64) uint64 { return a + min(b, math.MaxUint64-a) }
