package configs_test

import (
	"fmt"

	"tapsec/configs"
)

const site = `
sas:
  - {name: site, spi: 0x1001, dst: 192.0.2.2, protocol: esp, mode: tunnel,
     suite: aes128gcm16, encryption_key: 0x000102030405060708090a0b0c0d0e0f10111213}
`

// A configuration holds SAs, and how the NIC is to be.
func ExampleParse() {
	c, err := configs.Parse("site.yaml", []byte(site))
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(c.Wire.Name, c.Host.Name, c.Profile.Name)
	for _, bundle := range c.Bundles() {
		fmt.Println(bundle[0], bundle[0].Suite.Name)
	}
	// Output:
	// wire0 host0 full
	// site (esp tunnel, SPI 0x00001001, to 192.0.2.2) aes128gcm16
}

// Every mistake is named by its place, with what was expected.
func ExampleErrors() {
	_, err := configs.Parse("site.yaml", []byte("queues: 0\nprofile: half\n"))
	fmt.Println(err)
	// Output:
	// site.yaml:1:9: queues: expected 1 to 256, found 0
	//     queues: 0
	// site.yaml:2:10: profile: expected full, ndis-v1, ndis-v2, ixgbe-82599 or mlx5-crypto, found "half"
	//     profile: half
}
