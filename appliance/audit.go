//go:build linux

package appliance

import (
	"context"
	"log/slog"
	"net/netip"
	"time"

	"tapsec/internal/audit"
	"tapsec/internal/event"
	"tapsec/internal/outbound"
	"tapsec/sa"
	"tapsec/status"
	"tapsec/transport"
	"tapsec/wire"
)

// line is a line of the log about a frame. Its time is the frame's, if that is known.
type line struct {
	time  time.Time
	level slog.Level
	attrs []slog.Attr
}

// add adds what is known.
func (l *line) add(known bool, key string, value any) {
	if known {
		l.attrs = append(l.attrs, slog.Any(key, value))
	}
}

// packet adds what is known of a packet: whose it is, its number and its addresses.
func (l *line) packet(name string, protocol sa.Protocol, spi uint32, number uint64, src, dst netip.Addr) {
	l.add(name != "", "sa", name)
	l.add(protocol != 0, "protocol", protocol.String())
	l.add(spi != 0, "spi", sa.SPI(spi).String())
	l.add(number != 0, "seq", number)
	l.add(src.IsValid(), "src", src)
	l.add(dst.IsValid(), "dst", dst)
}

func (l *line) log(log *slog.Logger, msg string) {
	if l.time.IsZero() {
		l.time = time.Now()
	}
	ctx := context.Background()
	if !log.Enabled(ctx, l.level) {
		return
	}
	r := slog.NewRecord(l.time, l.level, msg, 0)
	r.AddAttrs(l.attrs...)
	_ = log.Handler().Handle(ctx, r)
}

// leftOut is the line about events that got no line of their own.
const leftOut = "more of the same, without lines of their own"

// onceReceived and onceSent list what happens once to an SA.
var (
	onceReceived = map[transport.Reason]event.Kind{
		transport.SoftExpired: event.SASoftExpired, transport.Expired: event.SAExpired, transport.Resynchronised: event.SAResynchronised,
	}
	onceSent = map[outbound.Reason]event.Kind{outbound.NumbersUsed: event.SANumbersUsed}
)

// logReceived logs what the transport drops, and what happens to its SAs.
func (a *Appliance) logReceived(e transport.Event) {
	l := line{time: e.Time, level: slog.LevelWarn}
	l.add(true, "reason", e.Reason.Qualified())
	l.packet(e.SA, e.Protocol, e.SPI, e.Number, e.Src, e.Dst)
	l.add(e.FlowID != 0, "flow", e.FlowID)
	l.add(e.Check != 0, "check", e.Check.Qualified())
	l.add(e.Suppressed > 0, "suppressed", e.Suppressed)
	switch {
	case e.Silent:
		l.log(a.log, leftOut)
	case e.Once:
		a.tellAt(l.time, onceReceived[e.Reason], l.attrs...)
	default:
		l.log(a.log, e.Reason.Sentence())
	}
}

// logSent does the same for the outbound side.
func (a *Appliance) logSent(e outbound.Event) {
	l := line{time: e.Time, level: slog.LevelWarn}
	if e.Reason == outbound.TooLong || e.Reason == outbound.Narrowed {
		l.level = slog.LevelInfo // the stack is told, and sends less
	}
	l.add(true, "reason", e.Reason.Qualified())
	l.packet(e.SA, e.Protocol, e.SPI, e.Number, e.Src, e.Dst)
	l.add(e.FlowID != 0, "flow", e.FlowID)
	l.add(e.Router.IsValid(), "router", e.Router)
	l.add(e.MTU != 0, "mtu", e.MTU)
	l.add(e.Suppressed > 0, "suppressed", e.Suppressed)
	kind, once := onceSent[e.Reason]
	switch {
	case e.Silent:
		l.log(a.log, leftOut)
	case once:
		a.tellAt(l.time, kind, l.attrs...)
	default:
		l.log(a.log, e.Reason.Sentence())
	}
}

// failures logs the frames that a NIC finds bad, at the same bounded rate as the
// transport's drops. It tells SAs apart by their handles.
type failures struct {
	adapter *Adapter
	log     *slog.Logger
	limit   audit.Limiter[uint32]
}

// frame is called on the frame path, by several goroutines.
func (f *failures) frame(frame []byte, t *status.Trailer) {
	rec := failedRecord(t)
	suppressed, ok := f.limit.Allow(uint8(t.Reason), rec.Handle)
	if !ok {
		return
	}
	l := line{time: time.Unix(0, t.Received), level: slog.LevelWarn}
	var p wire.Packet
	name := ""
	if at, ok := wire.Addresses(frame, int(rec.IP)); ok && rec.IP > 0 {
		p, name = at, f.adapter.sad.Name(&rec, at.Dst, at.Src, at.Proto == wire.ProtoUDP)
	}
	l.add(true, "reason", t.Reason.Qualified())
	l.add(true, "status", t.Word.Code().String())
	l.packet(name, sa.Protocol(rec.Protocol), rec.SPI, rec.Number, p.Src, p.Dst)
	l.add(suppressed > 0, "suppressed", suppressed)
	l.log(f.log, t.Reason.Sentence())
}

// failedRecord is the record at which the work ended, or an empty one.
func failedRecord(t *status.Trailer) (none status.Record) {
	for _, rec := range t.Records[:t.N] {
		if rec.Code != status.Success {
			return rec
		}
	}
	return none
}

// silent logs the number of events left out that no later line will mention.
func (f *failures) silent(all bool) {
	f.limit.Silent(all, func(reason uint8, n uint64) {
		l := line{level: slog.LevelWarn}
		l.add(true, "reason", status.Reason(reason).Qualified())
		l.add(true, "suppressed", n)
		l.log(f.log, leftOut)
	})
}
