package capture

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"tapsec/internal/lab/rig"
	"tapsec/status"
)

// delivered is a frame as the NIC hands it on: a clear IPv4 packet, padded, and
// a trailer with one record.
func delivered() []byte {
	frame := append([]byte{2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0},
		0x45, 0, 0, 20, 0, 0, 0, 0, 64, 59, 0, 0, 192, 0, 2, 1, 192, 0, 2, 2)
	t := status.Trailer{
		Word: status.CryptoDone.WithCode(status.TransportESPAuthFailed), Reason: status.ESPICV,
		WireLen: uint32(len(frame)), Ordinal: 7,
	}
	t.Add(status.Record{Portion: status.TransportPortion, Protocol: 50, SPI: 0xc001, Number: 3, State: status.FailedBefore})
	return status.Annotate(frame, &t)
}

// write writes frames, each with a comment that names its number.
func write(t testing.TB, frames ...[]byte) []byte {
	t.Helper()
	var out bytes.Buffer
	w, err := NewWriter(&out)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"wire0", "host0"} {
		if _, err := w.Interface(name, "frames on "+name); err != nil {
			t.Fatal(err)
		}
	}
	for i, f := range frames {
		at := time.Unix(1700000000, int64(i)*1001)
		if err := w.Frame(i%2, at, f, fmt.Sprintf("frame %d", i+1)); err != nil {
			t.Fatal(err)
		}
	}
	return out.Bytes()
}

// What the writer writes reads back: bytes, times to the nanosecond, interfaces.
func TestWriterReadsBack(t *testing.T) {
	frames := [][]byte{delivered(), {1, 2, 3}, make([]byte, 61), {}}
	all, err := readAll(bytes.NewReader(write(t, frames...)))
	if err != nil || len(all) != len(frames) {
		t.Fatalf("%d frames, %v", len(all), err)
	}
	for i, r := range all {
		name := []string{"wire0", "host0"}[i%2]
		if !bytes.Equal(r.frame, frames[i]) || r.Time.UnixNano() != 1700000000e9+int64(i)*1001 || r.Interface != name {
			t.Errorf("frame %d: %d bytes, %v, %q", i+1, len(r.frame), r.Time, r.Interface)
		}
	}
}

// tshark sees the comments, the interfaces and the times.
func TestWriterAgainstTshark(t *testing.T) {
	tshark, err := exec.LookPath("tshark")
	if err != nil {
		rig.Missing(t, "tshark is missing: apt-get install tshark")
	}
	file := filepath.Join(t.TempDir(), "frames.pcapng")
	if err := os.WriteFile(file, write(t, delivered(), delivered(), delivered()), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(tshark, "-nr", file, "-T", "fields", "-e", "frame.comment",
		"-e", "frame.interface_name", "-e", "frame.time_epoch", "-e", "ip.dst").Output()
	if err != nil {
		t.Fatal(err)
	}
	want := "frame 1\twire0\t1700000000.000000000\t192.0.2.2\n" +
		"frame 2\thost0\t1700000000.000001001\t192.0.2.2\n" +
		"frame 3\twire0\t1700000000.000002002\t192.0.2.2\n"
	if string(out) != want {
		t.Errorf("got\n%swant\n%s", out, want)
	}
}

func TestWriterErrors(t *testing.T) {
	full := errors.New("disk full")
	if _, err := NewWriter(broken{full}); !errors.Is(err, full) {
		t.Errorf("NewWriter: %v", err)
	}
	w, err := NewWriter(io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Frame(0, time.Time{}, nil, ""); err == nil {
		t.Error("a frame on an interface that was not described was taken")
	}
}

type broken struct{ error }

func (b broken) Write([]byte) (int, error) { return 0, b.error }

// A gopacket program finds the trailer first, then the frame as if there were
// none; with a DecodingLayerParser it allocates nothing for it.
func TestTrailerLayer(t *testing.T) {
	p := Decode(delivered())
	l, ok := p.Layer(LayerTypeTrailer).(*TrailerLayer)
	if !ok || l.Word != 0x00030002 || l.Ordinal != 7 || l.N != 1 || l.Records[0].SPI != 0xc001 {
		t.Fatalf("trailer layer %+v", l)
	}
	if len(l.Contents) != l.Len() || len(l.Payload) != status.MinFrame {
		t.Errorf("%d bytes of trailer behind %d", len(l.Contents), len(l.Payload))
	}
	if ip, ok := p.NetworkLayer().(*layers.IPv4); !ok || ip.Protocol != 59 {
		t.Errorf("network layer %v", p.NetworkLayer())
	}
	var trailer TrailerLayer
	var eth layers.Ethernet
	var ip layers.IPv4
	parser := gopacket.NewDecodingLayerParser(LayerTypeTrailer, &trailer, &eth, &ip)
	parser.IgnoreUnsupported = true
	var found []gopacket.LayerType
	if err := parser.DecodeLayers(delivered(), &found); err != nil || len(found) != 3 {
		t.Errorf("layers %v, %v", found, err)
	}
}

// A frame without a trailer, or with a damaged one, decodes to an error.
func TestTrailerLayerMissing(t *testing.T) {
	damaged := delivered()
	damaged[len(damaged)-20] ^= 1
	for name, c := range map[string]struct {
		frame []byte
		want  error
	}{
		"none":    {make([]byte, 60), status.ErrNoTrailer},
		"damaged": {damaged, status.ErrTrailer},
	} {
		p := Decode(c.frame)
		if l := p.ErrorLayer(); l == nil || !errors.Is(l.Error(), c.want) {
			t.Errorf("%s: error layer %v", name, l)
		}
	}
}

// A gopacket program that prints the verdicts of an annotated capture.
func Example() {
	file := strings.NewReader(string(write(&testing.T{}, delivered())))
	r, err := NewReader(file)
	if err != nil {
		fmt.Println(err)
		return
	}
	for {
		frame, info, err := r.Next()
		if err == io.EOF {
			return
		}
		if err != nil {
			fmt.Println(err)
			return
		}
		trailer, ok := Decode(frame).Layer(LayerTypeTrailer).(*TrailerLayer)
		if !ok {
			fmt.Println(info.Number, "has no trailer")
			continue
		}
		fmt.Println(info.Number, trailer)
	}
	// Output: 1 00030002 CRYPTO_TRANSPORT_ESP_AUTH_FAILED: the ESP ICV is wrong
}
