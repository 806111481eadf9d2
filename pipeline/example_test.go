package pipeline_test

import (
	"fmt"
	"os"

	"tapsec/capture"
	"tapsec/configs"
	"tapsec/pipeline"
	"tapsec/status"
)

// A NIC without interfaces: frames in, the same frames with their verdicts out.
func ExamplePipeline_Process() {
	c, err := configs.Load("../configs/layers.yaml")
	if err != nil {
		fmt.Println(err)
		return
	}
	sad := pipeline.NewSAD(c.Profile, 1)
	for _, bundle := range c.Bundles() {
		if _, err := sad.Add(bundle...); err != nil {
			fmt.Println(err)
			return
		}
	}
	p := pipeline.New(sad, pipeline.Options{})
	f, err := os.Open("../configs/layers.pcapng")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer f.Close()
	frames, err := capture.NewReader(f)
	if err != nil {
		fmt.Println(err)
		return
	}
	for range 3 {
		frame, _, err := frames.Next()
		if err != nil {
			fmt.Println(err)
			return
		}
		_, t, err := status.Split(p.Process(frame))
		if err != nil {
			fmt.Println(err)
			return
		}
		fmt.Println(t.Word, t.Word.Code(), t.Reason)
	}
	// Output:
	// 00000006 CRYPTO_SUCCESS verified
	// 00000006 CRYPTO_SUCCESS verified
	// 00020006 CRYPTO_TRANSPORT_AH_AUTH_FAILED ah-icv
}
