package sa_test

import (
	"fmt"
	"net/netip"

	"tapsec/sa"
)

// A table finds the SA of a received packet. Readers never lock, and changes may run
// beside them.
func ExampleTable() {
	suite, err := sa.ParseSuite(sa.ESP, "aes128gcm16")
	if err != nil {
		fmt.Println(err)
		return
	}
	gateway := netip.MustParseAddr("192.0.2.2")
	t := sa.NewTable[string](1024)
	err = t.Add(&sa.Entry[string]{
		SA: &sa.SA{
			Name: "site", SPI: 0x1001, Protocol: sa.ESP, Mode: sa.Tunnel, Dst: gateway, Suite: suite,
			EncryptionKey: sa.NewKey(make([]byte, suite.EncryptionKeyLen())),
		},
		Value: "whatever the owner keeps of it",
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	m := t.Lookup(0x1001, gateway, netip.MustParseAddr("192.0.2.1"), false)
	fmt.Println(m.ESP.SA, m.ESP.EncryptionKey)
	m = t.Lookup(0x1001, netip.MustParseAddr("192.0.2.3"), netip.MustParseAddr("192.0.2.1"), false)
	fmt.Println(m.Miss == sa.MissAddress)
	// Output:
	// site (esp tunnel, SPI 0x00001001, to 192.0.2.2) <key, 20 bytes>
	// true
}

// Of an extended sequence number a packet carries the low half only.
func ExampleNumber() {
	highest := uint64(7<<32 | 0xfffffff0) // authenticated so far
	fmt.Printf("%#x\n", sa.Number(highest, 0xfffffff8))
	fmt.Printf("%#x\n", sa.Number(highest, 3))
	// Output:
	// 0x7fffffff8
	// 0x800000003
}
