// Tapsec is a software NIC with IPsec receive offload, on Linux TAP devices.
package main

import (
	"os"

	"tapsec/internal/cli"
)

func main() { os.Exit(cli.Main()) }
