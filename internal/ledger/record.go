package ledger

import (
	"fmt"
	"time"

	"tapsec/internal/replay"
)

// record is one line of the file: all that is known of an SA, in place of earlier lines
// about it. It has either In or Out, and with In either UpTo or Window.
type record struct {
	In   string    `json:"in,omitempty"`  // fingerprint of an inbound SA
	Out  string    `json:"out,omitempty"` // fingerprint of an outbound SA, or of its key
	SA   string    `json:"sa,omitempty"`  // for people; empty where no SA has the key any more
	Seen time.Time `json:"seen"`          // when it was last configured

	Next uint64 `json:"next,omitempty"` // lowest number that cannot have been sent

	UpTo   *uint64          `json:"up_to,omitempty"`  // numbers up to here may have been taken
	Window *replay.Snapshot `json:"window,omitempty"` // exactly what was taken

	Packets uint64        `json:"packets,omitempty"`
	Bytes   uint64        `json:"bytes,omitempty"`
	Ended   bool          `json:"ended,omitempty"` // the hard lifetime is over
	Age     time.Duration `json:"age,omitempty"`   // ns
	Wall    int64         `json:"wall,omitempty"`  // when it had that age, in ns since the Unix epoch
	Clock   time.Duration `json:"clock,omitempty"` // the same by the ledger's clock
}

// check says why the line makes no sense.
func (r *record) check() error {
	_, ok := named(r.In + r.Out)
	switch {
	case (r.In == "") == (r.Out == ""), r.Out != "" && r.Next == 0, r.In != "" && (r.UpTo == nil) == (r.Window == nil):
		return fmt.Errorf("neither an inbound nor an outbound SA")
	case !ok:
		return fmt.Errorf("expected 32 hexadecimal digits to name an SA, found %d characters", len(r.In+r.Out))
	case r.Window != nil:
		if err := r.Window.Check(); err != nil {
			return fmt.Errorf("a window that makes no sense for %s: %w", r.SA, err)
		}
	}
	return nil
}

// inbound makes what the record is about.
func (r *record) inbound(age, clock time.Duration) *Inbound {
	in := &Inbound{account: account{last: last{seen: uint32(r.Seen.Unix())}}, packets: r.Packets, bytes: r.Bytes, ended: r.Ended, began: clock - age}
	switch {
	case r.UpTo != nil:
		in.window.Refuse(*r.UpTo)
		return in
	case r.Window.Off:
		in.window = replay.Off()
	default:
		in.window = replay.New(r.Window.Size)
	}
	if err := in.window.Restore(*r.Window); err != nil {
		panic("ledger: a window that was checked: " + err.Error())
	}
	return in
}
