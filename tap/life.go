package tap

import (
	"fmt"
	"os"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// life is that of an engine which holds descriptors and memory from the start, so that a shortage shows before
// the first frame. Until its thread begins the engine belongs to its devices: see Device.Close.
type life struct {
	name  string                // of the interface that is read
	end   func(why error) error // releases everything; the mutex is held
	uring *uring                // which is of one thread alone; nil: any will do
	busy  time.Duration
	awake time.Time // when something last happened, if busy is set
	last  error     // why the engine ended; it holds nothing from then on

	mutex   sync.Mutex // guards the engine until its thread begins, and later what wakes it
	started bool
	alarm   int // an eventfd while the engine is up, else -1
}

// open binds the engine to the calling goroutine's thread, until finish. It returns why the engine ended.
func (l *life) open() error {
	if l.started {
		return l.last
	}
	l.mutex.Lock()
	defer l.mutex.Unlock()
	if l.last != nil {
		return l.last
	}
	l.started, l.awake = true, time.Now()
	if l.uring == nil {
		return nil
	}
	runtime.LockOSThread()
	if err := l.uring.enable(); err != nil {
		defer runtime.UnlockOSThread()
		return l.end(err)
	}
	return nil
}

// begun reports whether the engine's thread has begun, or has ended.
func (l *life) begun() bool {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	return l.started || l.last != nil
}

// finish ends the engine and releases its thread.
func (l *life) finish(why error) error {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	if l.uring != nil {
		defer runtime.UnlockOSThread()
	}
	return l.end(why)
}

// release ends an engine whose thread has not begun when one of its devices is closed.
func (l *life) release() {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	if !l.started && l.last == nil {
		l.end(fmt.Errorf("%s: %w", l.name, os.ErrClosed))
	}
}

// setAlarm makes what wakes the engine.
func (l *life) setAlarm() (err error) {
	l.alarm, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	return err
}

// wake may be called from any goroutine.
func (l *life) wake() {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	if l.alarm >= 0 {
		unix.Write(l.alarm, []byte{1, 0, 0, 0, 0, 0, 0, 0}) // fails only if it has been written often enough
	}
}

// dropAlarm is for the end; the mutex is held.
func (l *life) dropAlarm() {
	if l.alarm >= 0 {
		unix.Close(l.alarm)
		l.alarm = -1
	}
}

// spinning reports whether the last event is too recent to go to sleep.
func (l *life) spinning() bool { return l.busy > 0 && time.Since(l.awake) < l.busy }
