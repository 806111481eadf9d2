//go:build !linux

package ledger

import (
	"errors"
	"os"
	"time"
)

// Elsewhere captures are read, for which a ledger is in memory alone.

var (
	errLocked = errors.New("locked by another process")
	started   = time.Now()
)

func lock(*os.File) error { return errors.ErrUnsupported }

func boottime() time.Duration { return time.Since(started) }
