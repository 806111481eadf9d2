package transport_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"

	"tapsec/capture"
	"tapsec/configs"
	"tapsec/pipeline"
	"tapsec/status"
	"tapsec/transport"
)

// The NIC annotates a frame, the transport after it decides. What comes twice is
// delivered once.
func ExampleReceiver() {
	c, err := configs.Load("../configs/layers.yaml")
	if err != nil {
		fmt.Println(err)
		return
	}
	sad, software := pipeline.NewSAD(c.Profile, 1), pipeline.NewSoftware()
	if err := sad.Replace(c.Bundles()); err != nil {
		fmt.Println(err)
		return
	}
	if err := software.Replace(c.AllBundles()); err != nil {
		fmt.Println(err)
		return
	}
	receiver, err := transport.New(transport.Config{SAs: c.AllBundles(), Fallback: software})
	if err != nil {
		fmt.Println(err)
		return
	}
	nic := pipeline.New(sad, pipeline.Options{})
	sealed, err := first("../configs/layers.pcapng")
	if err != nil {
		fmt.Println(err)
		return
	}
	for range 2 {
		frame := append(make([]byte, 0, len(sealed)+status.Tailroom), sealed...)
		clean, verdict, reason := receiver.Judge(nic.Process(frame))
		fmt.Printf("%d bytes on the wire: %s, %d bytes; %v\n", len(sealed), verdict, len(clean), reason)
	}
	// Output:
	// 162 bytes on the wire: deliver, 70 bytes; none
	// 162 bytes on the wire: drop, 0 bytes; replay
}

// A window outlives the program in a file: what was taken before is not taken again.
func ExampleOpenLedger() {
	c, err := configs.Load("../configs/layers.yaml")
	if err != nil {
		fmt.Println(err)
		return
	}
	dir, err := os.MkdirTemp("", "example")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	sealed, err := first("../configs/layers.pcapng")
	if err != nil {
		fmt.Println(err)
		return
	}
	for range 2 { // two runs of a program
		ledger, err := transport.OpenLedger(filepath.Join(dir, "state"), func(err error) { fmt.Println(err) })
		if err != nil {
			fmt.Println(err)
			return
		}
		software := pipeline.NewSoftware()
		if err := software.Replace(c.AllBundles()); err != nil {
			fmt.Println(err)
			return
		}
		receiver, err := transport.New(transport.Config{SAs: c.AllBundles(), Fallback: software, Ledger: ledger})
		if err != nil {
			fmt.Println(err)
			return
		}
		frame := append(make([]byte, 0, len(sealed)+status.Tailroom), sealed...)
		_, verdict, reason := receiver.Judge(status.Annotate(frame, &status.Trailer{WireLen: uint32(len(sealed)), Reason: status.NoSA}))
		fmt.Println(verdict, reason)
		if err := ledger.Close(); err != nil {
			fmt.Println(err)
			return
		}
	}
	// Output:
	// software none
	// drop replay
}

// first is the first frame of a capture.
func first(path string) ([]byte, error) {
	file, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	r, err := capture.NewReader(bytes.NewReader(file))
	if err != nil {
		return nil, err
	}
	frame, _, err := r.Next()
	return frame, err
}
