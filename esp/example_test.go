package esp_test

import (
	"crypto/rand"
	"fmt"

	"tapsec/esp"
	"tapsec/sa"
)

// One side seals under a number that it never uses again, the other one opens in
// place.
func ExampleInbound_Open() {
	suite, err := sa.ParseSuite(sa.ESP, "aes256-sha256")
	if err != nil {
		fmt.Println(err)
		return
	}
	s := &sa.SA{SPI: 0x1001, Protocol: sa.ESP, Suite: suite,
		EncryptionKey: sa.NewKey([]byte("32 bytes known to nobody else...")),
		IntegrityKey:  sa.NewKey([]byte("and 32 more that nobody knows...")),
	}
	out, err := esp.NewOutbound(s, rand.Reader)
	if err != nil {
		fmt.Println(err)
		return
	}
	packet, err := out.Seal(nil, []byte("attack at dawn"), 17, 1)
	if err != nil {
		fmt.Println(err)
		return
	}
	in, err := esp.NewInbound(s, 1)
	if err != nil {
		fmt.Println(err)
		return
	}
	var scratch esp.Scratch
	o, reason := in.Open(0, packet, 1, &scratch)
	fmt.Printf("%s: %q, next header %d\n", reason, packet[esp.HeaderLen+suite.IVLen:][:o.Len], o.NextHeader)
	_, reason = in.Open(0, packet, 2, &scratch)
	fmt.Println(reason, "-", reason.Sentence())
	// Output:
	// verified: "attack at dawn", next header 17
	// esp-icv - the ESP ICV is wrong
}
