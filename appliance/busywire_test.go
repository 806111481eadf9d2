package appliance

import (
	"context"
	"io"
	"log/slog"
	"strings"
	"testing"

	"tapsec/configs"
	"tapsec/internal/lab/rig"
	"tapsec/sa"
)

// onLine calls do when the log gets a line that begins so.
type onLine struct {
	slog.Handler
	begins string
	do     func()
}

func (o onLine) Handle(_ context.Context, r slog.Record) error {
	if strings.HasPrefix(r.Message, o.begins) {
		o.do()
	}
	return nil
}

// What cannot be opened says why, also where the wire's queue has overflowed by then.
func TestRefusedOnABusyWire(t *testing.T) {
	rig.Require(t)
	const wire = "busy0"
	out := makeSA("out", 1, sa.ESP, sa.Tunnel, "aes128gcm16")
	out.Direction = sa.Outbound
	flooded := false
	flood := func() {
		s, err := rig.OpenSocket(wire)
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		for range 5000 { // more than a TAP queues
			_ = s.Send(make([]byte, 60)) // what the queue refuses is what this is about
		}
		flooded = true
	}
	a, err := New(Options{Transport: true, Mirror: true, Load: func() (*configs.Config, error) {
		c := configs.Default()
		c.Wire.Name, c.Host.Name, c.SAs = wire, "busy1", []*sa.SA{out}
		return c, nil
	}, Log: slog.New(onLine{slog.NewTextHandler(io.Discard, nil), "a key that has sealed", flood})})
	if err == nil {
		a.Close()
	}
	if err == nil || !strings.Contains(err.Error(), "both would seal with the same numbers") || !flooded {
		t.Errorf("said %v; flooded %v", err, flooded)
	}
}
