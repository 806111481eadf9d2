package control

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"
	"testing"
	"time"

	"tapsec/control"
	"tapsec/internal/event"
	"tapsec/test/testkit"
)

func fail(l *event.Log, n int) {
	l.Tell(event.SAFailed, time.Now(), slog.String("sa", fmt.Sprint(n)))
}

// The last events are asked for, or followed from there on until the server ends.
func TestEvents(t *testing.T) {
	path, log := socket(t), &event.Log{}
	s := open(t, path, Config{Events: log})
	c := dial(t, path)
	if all, err := c.Events(10); err != nil || len(all) != 0 {
		t.Fatalf("%v, %v", all, err)
	}
	for n := 1; n <= 3; n++ {
		fail(log, n)
	}
	all, err := c.Events(2)
	if err != nil || len(all) != 2 || all[0].ID != 2 || all[1].Event != "sa-failed" || all[1].Fields["sa"] != "3" || all[1].Text != event.SAFailed.Sentence() {
		t.Fatalf("%v, %v", all, err)
	}
	next := uint64(2)
	for e, err := range c.Follow(context.Background(), 2) {
		if err != nil {
			t.Fatal(err)
		}
		if e.ID != next {
			t.Fatalf("event %d, expected %d", e.ID, next)
		}
		if next++; next == 4 {
			fail(log, 4)
			time.AfterFunc(serverPause+time.Second, func() { fail(log, 5) }) // longer than any other request may take
		}
		if next == 6 {
			go func() { fail(log, 6); s.Close() }()
		}
	}
	if next != 7 {
		t.Errorf("the stream ended before event %d", next)
	}
}

// A listener that does not read holds up nobody, and what it has lost is counted
// (contract, What is logged).
func TestSlowListener(t *testing.T) {
	path, log := socket(t), &event.Log{}
	open(t, path, Config{Events: log})
	c := dial(t, path)
	const events = 50000 // more than a socket and the list hold
	fail(log, 1)
	next, lost := uint64(1), uint64(0)
	for e, err := range c.Follow(context.Background(), 1) {
		if err != nil {
			t.Fatal(err)
		}
		if e.ID == 1 { // and no more is read until all are told of
			for n := 2; n <= events; n++ {
				fail(log, n)
			}
		}
		if n, missing := e.Fields["events"].(float64); missing && e.Event == "events-lost" {
			lost += uint64(n)
			next += uint64(n)
			if e.ID != next-1 {
				t.Fatalf("%v lost before event %d, as event %d", n, next, e.ID)
			}
			continue
		}
		if e.ID != next {
			t.Fatalf("event %d, expected %d", e.ID, next)
		}
		if next++; e.ID == events {
			break
		}
	}
	if lost < events/2 {
		t.Errorf("only %d of %d events are lost", lost, events)
	}
}

// Some places are for those who follow, and the others for those who ask.
func TestManyFollowers(t *testing.T) {
	path, log := socket(t), &event.Log{}
	open(t, path, Config{Events: log})
	fail(log, 1)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	following, ended := make(chan error), make(chan error, maxFollowers)
	follow := func() {
		for _, err := range dial(t, path).Follow(ctx, 1) {
			following <- err
		}
		ended <- nil
	}
	for range maxFollowers {
		go follow()
		if err := <-following; err != nil {
			t.Fatal(err)
		}
	}
	for _, err := range dial(t, path).Follow(ctx, 0) {
		var said *control.Error
		if !errors.As(err, &said) || said.Code != control.Busy {
			t.Errorf("one too many gets %v", err)
		}
	}
	cancel()
	for range maxFollowers {
		<-ended
	}
	deadline := time.Now().Add(time.Minute) // their places are free, once the server has noticed
	for {
		status, text := raw(t, path, "GET", "/events/stream?last=1&count=1", "")
		if status == 200 && strings.HasPrefix(text, "id: 1\nevent: sa-failed\ndata: {") {
			return
		}
		if status != 503 || time.Now().After(deadline) {
			t.Fatalf("%d %s", status, text)
		}
	}
}

func TestEventsRefused(t *testing.T) {
	path := socket(t)
	open(t, path, Config{Events: &event.Log{}})
	for url, says := range map[string]string{
		"/events?last=no": "last: expected a number up to 1024", "/events/stream?last=1025": "last: expected a number up to 1024",
		"/events/stream?count=-1": "count: expected a number up to",
	} {
		if status, text := raw(t, path, "GET", url, ""); status != 400 || !strings.Contains(text, says) {
			t.Errorf("%s: %d %s", url, status, text)
		}
	}
}

// Listeners that leave give their places back, although no event comes and they have announced a body, or another
// request has begun behind their own.
func TestListenersThatLeave(t *testing.T) {
	path := socket(t)
	open(t, path, Config{Events: &event.Log{}})
	for _, more := range []string{"Content-Length: 5\r\n\r\n", "Transfer-Encoding: chunked\r\n\r\n5\r\n", "\r\nG", "\r\n"} {
		var all []net.Conn
		for deadline := time.Now().Add(testkit.Patience); len(all) < maxFollowers; { // those before may not have left yet
			conn, err := net.Dial("unix", path)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			if _, err := io.WriteString(conn, "GET /events/stream HTTP/1.1\r\nHost: x\r\n"+more); err != nil {
				t.Fatal(err)
			}
			switch answer, err := bufio.NewReader(conn).ReadString('\n'); {
			case strings.Contains(answer, " 200 "):
				all = append(all, conn)
			case !strings.Contains(answer, " 503 ") || time.Now().After(deadline):
				t.Fatalf("%q: %q, %v", more, answer, err)
			default:
				conn.Close()
				time.Sleep(10 * time.Millisecond)
			}
		}
		for _, conn := range all {
			conn.Close()
		}
	}
}

// A program that ends without a word, and one that is no longer there.
func TestStreamBreaks(t *testing.T) {
	path := socket(t)
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		for _, said := range []string{"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}",
			"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: 99\r\n\r\ndata: {\"id\": 1}\n\n"} {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			conn.Read(make([]byte, 4096))
			conn.Write([]byte(said))
			conn.Close()
		}
	}()
	c := dial(t, path)
	var last error
	got := 0
	for e, err := range c.Follow(context.Background(), 0) {
		if last = err; err == nil && e.ID == 1 {
			got++
		}
	}
	wantSentence(t, last, path, "the events ended")
	if got != 1 {
		t.Errorf("%d events", got)
	}
	l.Close()
	for _, err := range c.Follow(context.Background(), 0) {
		wantSentence(t, err, path, "does not exist")
	}
}

// A program whose answer has no end fills no memory of who reads it, and is not taken for one
// of another version.
func TestEndlessAnswer(t *testing.T) {
	const much = 72 << 20
	for _, one := range []struct {
		ask  func(*control.Client) error
		said string
	}{
		{ask: func(c *control.Client) (last error) {
			for _, err := range c.Trace(context.Background(), control.Frames{}) {
				last = err
			}
			return last
		}, said: "the trace ended"},
		{ask: func(c *control.Client) error { var v any; return c.Get("windows", &v) }, said: "longer than 64 MiB"},
	} {
		path := socket(t)
		l, err := net.Listen("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		taken := make(chan int, 1)
		go func() {
			for _, said := range []string{"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}", "HTTP/1.1 200 OK\r\n\r\n"} {
				conn, err := l.Accept()
				if err != nil {
					return
				}
				conn.Read(make([]byte, 4096))
				conn.Write([]byte(said))
				if said[len(said)-1] == '\n' {
					n, _ := conn.Write(make([]byte, much))
					taken <- n
				}
				conn.Close()
			}
		}()
		wantSentence(t, one.ask(dial(t, path)), path, one.said)
		if n := <-taken; n == much {
			t.Error("all of it was read")
		}
	}
}
