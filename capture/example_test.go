package capture_test

import (
	"errors"
	"fmt"
	"io"
	"os"

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
	// 00000000 CRYPTO_SUCCESS: the frame carries no IPv4 or IPv6 packet
}
