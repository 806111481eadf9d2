package ah_test

import (
	"fmt"

	"tapsec/ah"
	"tapsec/sa"
	"tapsec/wire"
)

// AH covers what does not change on the way: the hop limit may, an address may not.
func ExampleInbound_Verify() {
	suite, err := sa.ParseSuite(sa.AH, "sha256")
	if err != nil {
		fmt.Println(err)
		return
	}
	s := &sa.SA{SPI: 0x1002, Protocol: sa.AH, Suite: suite, IntegrityKey: sa.NewKey([]byte("32 bytes known to nobody else..."))}
	out, err := ah.NewOutbound(s)
	if err != nil {
		fmt.Println(err)
		return
	}
	packet := append([]byte{6 << 4, 0, 0, 0, 0, byte(out.Len()), wire.ProtoAH, 64}, make([]byte, 32)...) // from :: to ::
	packet = out.Append(packet, wire.ProtoNoNext, 1)
	p, err := wire.ParseIP(packet, 0, len(packet), 6)
	if err != nil {
		fmt.Println(err)
		return
	}
	if err := out.Sign(packet, &p, 1); err != nil {
		fmt.Println(err)
		return
	}
	in, err := ah.NewInbound(s, 1)
	if err != nil {
		fmt.Println(err)
		return
	}
	var scratch ah.Scratch
	packet[7]-- // the hop limit
	fmt.Println(in.Verify(0, packet, &p, 1, &scratch))
	packet[39]++ // the destination
	fmt.Println(in.Verify(0, packet, &p, 1, &scratch))
	// Output:
	// verified
	// ah-icv
}
