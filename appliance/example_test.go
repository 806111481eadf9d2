package appliance_test

import (
	"context"
	"fmt"
	"os"
	"os/signal"

	"tapsec/appliance"
	"tapsec/configs"
	"tapsec/status"
)

// The NIC without its interfaces, for whoever has frames from elsewhere.
func ExampleAdapter() {
	c, err := configs.Load("../configs/layers.yaml")
	if err != nil {
		fmt.Println(err)
		return
	}
	nic, err := appliance.NewAdapter(c)
	if err != nil {
		fmt.Println(err)
		return
	}
	arp := make([]byte, 60)
	arp[12], arp[13] = 0x08, 0x06
	nic.Pipeline(0).Batch([][]byte{arp})
	fmt.Println(len(nic.SAs()), "SAs,", nic.Reason(status.NotIP), "frame without IP,", nic.Failed(), "failed")
	// Output:
	// 4 SAs, 1 frame without IP, 0 failed
}

// A NIC with its transport between two interfaces, until it is interrupted. It needs
// CAP_NET_ADMIN.
func ExampleNew() {
	a, err := appliance.New(appliance.Options{
		Load:      func() (*configs.Config, error) { return configs.Load("site.yaml") },
		Transport: true,
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	defer a.Close()
	fmt.Println(a.Run(ctx))
}
