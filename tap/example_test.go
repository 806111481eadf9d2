package tap_test

import (
	"fmt"

	"tapsec/tap"
)

// Names are looked at before the kernel is asked, which would only say EINVAL.
func ExampleCheckName() {
	fmt.Println(tap.CheckName("wire0"))
	fmt.Println(tap.CheckName("a name with blanks"))
	// Output:
	// <nil>
	// interface name "a name with blanks" is 18 bytes long, the kernel takes 15: shorten it
}

// Two TAPs that hand each other's frames on, until one is gone. It needs
// CAP_NET_ADMIN.
func ExampleJoin() {
	wire, err := tap.Open(tap.Config{Name: "wire0"})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer wire.Close()
	host, err := tap.Open(tap.Config{Name: "host0"})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer host.Close()
	workers, err := tap.Join(wire, host, 0, tap.Options{Room: 1 << 16})
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, worker := range workers { // mostly one; where there are two each wants a goroutine
		for err == nil {
			var direction *tap.Direction
			var frames [][]byte
			if direction, frames, err = worker.Next(); err == nil {
				err = direction.Send(frames)
			}
		}
	}
	fmt.Println(err)
}
