package keys_test

import (
	"fmt"
	"os"

	"tapsec/keys"
)

// What `ip xfrm state` says of an SA, as an SA, and as Wireshark reads it.
func ExampleRead() {
	read, err := keys.Read("the kernel", []byte(`src 192.0.2.1 dst 192.0.2.2
	proto esp spi 0x00001001 reqid 1 mode tunnel
	replay-window 32
	aead rfc4106(gcm(aes)) 0x000102030405060708090a0b0c0d0e0f10111213 128
`))
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, s := range read.All {
		fmt.Println(s, s.Suite.Name, s.EncryptionKey)
	}
	fmt.Println(len(read.Notes), "notes")
	_ = keys.WriteESPSA(os.Stdout, read.All)
	// Output:
	// esp-00001001 (esp tunnel, SPI 0x00001001, to 192.0.2.2) aes128gcm16 <key, 20 bytes>
	// 0 notes
	// "IPv4","192.0.2.1","192.0.2.2","0x00001001","AES-GCM with 16 octet ICV [RFC4106]","0x000102030405060708090a0b0c0d0e0f10111213","NULL",""
}
