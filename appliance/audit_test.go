//go:build linux

package appliance

import (
	"bytes"
	"log/slog"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"tapsec/internal/audit"
	"tapsec/internal/outbound"
	"tapsec/sa"
	"tapsec/status"
	"tapsec/transport"
)

// A line about a frame has the frame's time, and all that is known of the frame; what got
// no line is counted in the next one or, at the end, in one of its own (contract, What is
// logged).
func TestLines(t *testing.T) { synctest.Test(t, testLines) }

func testLines(t *testing.T) {
	var log bytes.Buffer
	a := &Appliance{log: slog.New(slog.NewTextHandler(&log, nil))}
	at, src, dst := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("2001:db8::2")
	says := func(want string) {
		t.Helper()
		if line := strings.TrimSuffix(log.String(), "\n"); line != want {
			t.Errorf("logged\n%s\nexpected\n%s", line, want)
		}
		log.Reset()
	}
	a.logReceived(transport.Event{Time: at, Reason: transport.ICV, Check: status.ESPICV, SA: "web", Protocol: sa.ESP, SPI: 0x1001,
		Number: 7, Src: src, Dst: dst, FlowID: 5, Suppressed: 3})
	says(`time=2026-01-02T03:04:05.000Z level=WARN msg="an ICV is wrong" reason=transport/icv sa=web protocol=esp spi=0x00001001 seq=7 ` +
		`src=2001:db8::1 dst=2001:db8::2 flow=5 check=nic/esp-icv suppressed=3`)
	a.logReceived(transport.Event{Time: at, Reason: transport.Clear})
	says(`time=2026-01-02T03:04:05.000Z level=WARN msg="policy wants this packet protected, and it came in clear" reason=transport/clear`)
	a.logReceived(transport.Event{Time: at, Reason: transport.Clear, Suppressed: 9, Silent: true})
	says(`time=2026-01-02T03:04:05.000Z level=WARN msg="more of the same, without lines of their own" reason=transport/clear suppressed=9`)
	a.logSent(outbound.Event{Time: at, Reason: outbound.TooLong, SA: "web site", Src: src, Dst: dst, FlowID: 5, Suppressed: 3})
	says(`time=2026-01-02T03:04:05.000Z level=INFO msg="dropped: sealed it is longer than the wire's MTU, and it may not be fragmented" ` +
		`reason=outbound/too-long sa="web site" src=2001:db8::1 dst=2001:db8::2 flow=5 suppressed=3`)

	f := &failures{log: a.log}
	bad := status.Trailer{Reason: status.ESPICV, Word: status.CryptoDone.WithCode(status.TransportESPAuthFailed), Received: at.UnixNano()}
	bad.Add(status.Record{Protocol: uint8(sa.ESP), SPI: 0x1001, Number: 7, State: status.FailedBefore, Code: status.TransportESPAuthFailed})
	for range audit.PerSA + 2 {
		f.frame(nil, &bad)
	}
	if n := strings.Count(log.String(), "time="+at.Local().Format("2006-01-02T15:04:05.000")); n != audit.PerSA || strings.Contains(log.String(), "suppressed") {
		t.Errorf("logged\n%s", &log)
	}
	log.Reset()
	if f.silent(false); log.Len() > 0 {
		t.Errorf("before the second is over:\n%s", &log)
	}
	f.silent(true)
	_, rest, _ := strings.Cut(strings.TrimSuffix(log.String(), "\n"), " ") // it happens now
	if want := `level=WARN msg="more of the same, without lines of their own" reason=nic/esp-icv suppressed=2`; rest != want {
		t.Errorf("at the end: %s", rest)
	}
}
