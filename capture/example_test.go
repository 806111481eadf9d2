package capture_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"tapsec/capture"
	"tapsec/status"
)

// A capture is read frame by frame, whichever of the formats it is in.
func ExampleReader() {
	f, err := os.Open("../configs/layers.pcapng")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer f.Close()
	r, err := capture.NewReader(f)
	if err != nil {
		fmt.Println(err)
		return
	}
	for frames, bytes := 0, 0; ; frames++ {
		frame, _, err := r.Next()
		if errors.Is(err, io.EOF) {
			fmt.Println(frames, "frames,", bytes, "bytes")
			return
		} else if err != nil {
			fmt.Println(err)
			return
		}
		bytes += len(frame)
	}
	// Output:
	// 10 frames, 1604 bytes
}

// gopacket reads a delivered frame from its trailer on.
func ExampleDecode() {
	frame := status.Annotate(make([]byte, 60), &status.Trailer{Reason: status.NotIP, WireLen: 60})
	for _, l := range capture.Decode(frame).Layers() {
		fmt.Println(l.LayerType())
	}
	fmt.Println(capture.Decode(frame).Layer(capture.LayerTypeTrailer))
	// Output:
	// StatusTrailer
	// Ethernet
	// 00000000 CRYPTO_SUCCESS: the EtherType is neither IPv4 nor IPv6
}

// Frames are written with what is to be said of each as its comment, which
// Wireshark shows.
func ExampleWriter() {
	var file bytes.Buffer
	w, err := capture.NewWriter(&file)
	if err != nil {
		fmt.Println(err)
		return
	}
	wire, err := w.Interface("wire0", "the wire's side")
	if err != nil {
		fmt.Println(err)
		return
	}
	if err := w.Frame(wire, time.Unix(1, 0), make([]byte, 60), "of zeros"); err != nil {
		fmt.Println(err)
		return
	}
	r, err := capture.NewReader(&file)
	if err != nil {
		fmt.Println(err)
		return
	}
	frame, info, err := r.Next()
	fmt.Println(len(frame), info.Interface, info.Time, err)
	// Output: 60 wire0 1970-01-01 00:00:01 +0000 UTC <nil>
}
