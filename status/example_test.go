package status_test

import (
	"encoding/hex"
	"fmt"
	"os"
	"strings"

	"tapsec/status"
)

// A delivered frame ends in its trailer, of which Split takes off exactly one.
func ExampleSplit() {
	body, t, err := status.Split(golden("../docs/trailer/failed.hex"))
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Printf("%d bytes, word %s %s: %s\n", len(body), t.Word, t.Word.Code(), t.Reason.Sentence())
	for _, r := range t.Records[:t.N] {
		fmt.Printf("%s portion, protocol %d, SPI %#08x: %s\n", r.Portion, r.Protocol, r.SPI, r.State)
	}
	fmt.Println("verified:", t.Word.Verified(1))
	// Output:
	// 138 bytes, word 00050003 CRYPTO_TUNNEL_ESP_AUTH_FAILED: the ESP ICV is wrong
	// tunnel portion, protocol 50, SPI 0x0000c001: failed
	// verified: false
}

// golden reads a frame of docs/trailer.
func golden(path string) (frame []byte) {
	text, err := os.ReadFile(path)
	if err != nil {
		panic(err)
	}
	for line := range strings.Lines(string(text)) {
		if _, bytes, ok := strings.Cut(strings.TrimSpace(line), "  "); ok && line[0] != '#' {
			b, _ := hex.DecodeString(strings.ReplaceAll(bytes, " ", ""))
			frame = append(frame, b...)
		}
	}
	return frame
}
