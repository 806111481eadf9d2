package wire_test

import (
	"encoding/hex"
	"fmt"

	"tapsec/wire"
)

// Where the headers of a received frame lie, none of which is trusted.
func ExampleParseIP() {
	frame, _ := hex.DecodeString("020000000002020000000001" + "81000064" + "0800" + // VLAN 100
		"4500001c000040004032b6acc0000201c0000202" + // from 192.0.2.1 to 192.0.2.2, protocol 50
		"0000100100000007") // SPI and number
	etherType, at, ok := wire.Ethernet(frame)
	if !ok || etherType != wire.EtherIPv4 {
		fmt.Println("no IPv4")
		return
	}
	p, err := wire.ParseIP(frame, at, len(frame), 4)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Printf("IP at %d from %s to %s; protocol %d at %d to %d\n", p.Start, p.Src, p.Dst, p.Proto, p.Header, p.End)
	fmt.Println("whole:", !p.Short, "fragment:", p.Fragment, "checksum:", wire.HeaderSum(frame, &p))
	// Output:
	// IP at 18 from 192.0.2.1 to 192.0.2.2; protocol 50 at 38 to 46
	// whole: true fragment: false checksum: true
}
