package explain_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"tapsec/appliance"
	"tapsec/capture"
	"tapsec/configs"
	"tapsec/internal/explain"
	"tapsec/internal/lab/conformance"
	"tapsec/status"
)

// The account of a frame is the same whatever form its host has it in: decap takes off the
// headers that it is about.
func TestForms(t *testing.T) {
	labs := conformance.Contract()
	for i := range labs {
		c, file := lab(t, &labs[i])
		other := *c
		other.Host.Form = configs.Decap
		for n := range labs[i].Cases {
			want, got := explained(t, c, file, n+1), explained(t, &other, file, n+1)
			if !reflect.DeepEqual(got.Document(), want.Document()) {
				t.Errorf("%s, frame %d: in another form it is told as\n%+v\nwant\n%+v", labs[i].Name, n+1, got.Document(), want.Document())
			}
		}
	}
}

// layers is the README's capture, and its SAs but those named.
func layers(t *testing.T, without ...string) (*configs.Config, []byte) {
	t.Helper()
	c, err := configs.LoadInput("../../configs/layers.yaml", nil)
	if err != nil {
		t.Fatal(err)
	}
	file, err := os.ReadFile("../../configs/layers.pcapng")
	if err != nil {
		t.Fatal(err)
	}
	kept := c.SAs[:0]
	for _, s := range c.SAs {
		if !slices.Contains(without, s.Name) {
			kept = append(kept, s)
		}
	}
	c.SAs = kept
	return c, file
}

// What lies in a good tunnel without an SA of its own is not called good, and other
// implementations open the tunnel around it.
func TestStoryInTunnel(t *testing.T) {
	c, file := layers(t, "host")
	d := explained(t, c, file, 4).Document()
	want := []string{"before this frame 1 left alone", "after it frame 9 is the next", "in the whole capture numbers 1 to 11: 8 lost, 1 doubled, 0 late"}
	if !slices.Equal(d.Story, want) {
		t.Errorf("told %q, want %q", d.Story, want)
	}
	for _, o := range d.Others {
		opened := map[string]string{"Linux": "opens the tunnel", "DPDK": "RTE_MBUF_F_RX_SEC_OFFLOAD", "virtio 1.4": "SECURITY"}[o.Who]
		if !strings.HasPrefix(o.Says, opened) || strings.Contains(o.Says, "ERR") {
			t.Errorf("%s says %q, want %q", o.Who, o.Says, opened)
		}
	}
}

// short is the capture with some of its frames cut to 80 bytes.
func short(t *testing.T, file []byte, numbers ...int) []byte {
	t.Helper()
	frames, err := capture.NewReader(bytes.NewReader(file))
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	w, err := capture.NewWriter(&out)
	if err == nil {
		_, err = w.Interface("wire0", "")
	}
	for err == nil {
		b, info, next := frames.Next()
		if next == io.EOF {
			return out.Bytes()
		}
		m := capture.Mark{}
		if slices.Contains(numbers, info.Number) {
			m.Missing, b = len(b)-80, b[:80]
		}
		err = errors.Join(next, w.Marked(0, time.Unix(1800000000, 0), b, "", &m))
	}
	t.Fatal(err)
	return nil
}

// A frame that the capture cut short has not failed: neither is it the first that did, nor does
// the account of another count it so.
func TestStoryOfCutFrames(t *testing.T) {
	c, file := layers(t)
	file = short(t, file, 1, 2, 7)
	if f := explained(t, c, file, 0); f.Number != 3 {
		t.Errorf("frame %d is explained, want 3, the first that failed", f.Number)
	}
	d := explained(t, c, file, 5).Document() // of gateway, as frames 1 and 7
	if got := fmt.Sprint(d.Story); !strings.Contains(got, "before this frame 0 good, 0 failed, 1 not judged") ||
		!strings.Contains(got, "after it none is good; frame 7 is the next, not judged") {
		t.Errorf("told %q", d.Story)
	}
}

// A capture that ends inside a frame is explained up to there, and the error comes, too.
func TestCutShort(t *testing.T) {
	c, file := layers(t)
	file = file[:len(file)-30]
	for number, want := range map[int]int{0: 3, 3: 3, 9: 9, 10: 0} {
		frames, err := capture.NewReader(bytes.NewReader(file))
		if err != nil {
			t.Fatal(err)
		}
		nic, err := appliance.NewOffline(c)
		if err != nil {
			t.Fatal(err)
		}
		f, err := explain.Capture(nic, c, frames, number)
		got := 0
		if f != nil {
			got = f.Number
		}
		if got != want {
			t.Errorf("frame %d: explained %d, want %d", number, got, want)
		}
		if !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("frame %d: %v", number, err)
		}
	}
}

// A frame that is left out is not one that the capture does not have, and those that tapsec
// delivered are no frames of the wire.
func TestLeftOut(t *testing.T) {
	c, file := layers(t)
	frames, err := capture.NewReader(bytes.NewReader(file))
	if err != nil {
		t.Fatal(err)
	}
	frame, _, err := frames.Next()
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	w, err := capture.NewWriter(&out)
	for i, what := range []string{"frames as they came", capture.Delivered} {
		if err == nil {
			_, err = w.Interface(fmt.Sprint("if", i), what)
		}
	}
	for i := range 2 {
		if err == nil {
			err = w.Frame(i, time.Unix(1800000000, 0), frame, "")
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	for number, want := range map[int]string{
		1: "",
		2: "frame 2: no such frame to explain; left out: 1 of interface if1 as tapsec delivered them, judged already; tapsec show tells of those",
		3: "frame 3: no such frame: the capture has 2",
	} {
		frames, err := capture.NewReader(bytes.NewReader(out.Bytes()))
		if err != nil {
			t.Fatal(err)
		}
		nic, err := appliance.NewOffline(c)
		if err != nil {
			t.Fatal(err)
		}
		_, err = explain.Capture(nic, c, frames, number)
		if got := fmt.Sprint(err); got != want && (want != "" || err != nil) {
			t.Errorf("frame %d: %s, want %s", number, got, want)
		}
	}
}

// Linux does not look at the alignment of what no block cipher sealed (Linux 6.1 takes such a
// packet), and near misses are about frames that fail.
func TestSaid(t *testing.T) {
	labs := conformance.Contract()
	seen := map[status.Reason]string{}
	for i := range labs {
		if labs[i].Name != "malformed" && labs[i].Name != "plain" {
			continue
		}
		c, file := lab(t, &labs[i])
		for n := range labs[i].Cases {
			f := explained(t, c, file, n+1)
			for _, o := range f.Others() {
				if o.Who == "Linux" {
					seen[f.Trailer.Reason] = o.Says
				}
			}
			if f.Trailer.Reason == status.Fragment && len(f.Near) > 0 {
				t.Errorf("%s, frame %d, a fragment: near misses %+v", labs[i].Name, n+1, f.Near)
			}
		}
	}
	if got := seen[status.ESPLength]; !strings.HasPrefix(got, "takes it if the ICV is right") {
		t.Errorf("of ESP that is not aligned Linux says %q", got)
	}
}
