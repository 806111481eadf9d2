package sa

import (
	"strings"
	"testing"
)

// Nothing of eight hexadecimal digits in a row is quoted, whatever stands between.
func TestQuote(t *testing.T) {
	for text, want := range map[string]string{
		"beet": `"beet"`, "": `""`, "0xc001": `"0xc001"`, "192.0.2.256": `"192.0.2.256"`, "aes128gcm17": `"aes128gcm17"`, "a\nb": `"a\nb"`,
		"1234567": `"1234567"`, "12345678": "<8 characters, not shown>", "tra00010203": "<11 characters, not shown>",
		"00:01:02:03": "<11 characters, not shown>", "0001 0203": "<9 characters, not shown>", "0001_0203": "<9 characters, not shown>",
		"00-01-02-03x": "<12 characters, not shown>", "192.0ABCDEF01": "<13 characters, not shown>", "µ12345678": "<9 characters, not shown>",
	} {
		if got := Quote(text); got != want {
			t.Errorf("%q: %s, expected %s", text, got, want)
		}
	}
}

func TestRedactLine(t *testing.T) {
	for text, want := range map[string]string{
		"- {spi: 0x0000c001, dst: 2001:db8:1:2::23, mode: beet}": "- {spi: 0x0000c001, dst: 2001:db8:1:2::23, mode: beet}",
		"src 2001:db8:1:2::/64 dst 192.0.2.2":                    "src 2001:db8:1:2::/64 dst 192.0.2.2",
		"proto esp spi 0x0000c001 mode tra00010203":              "proto esp spi 0x0000c001 mode tr<9 digits>",
		"dst: 192.0.0001020304":                                  "dst: 192.0.<10 digits>",
		"spi: 0x0000c00100":                                      "spi: 0x<10 digits>",
		"dst: 2001:db8:0001:0203:0405:0607:0809:0a0b:0c0d":       "dst: <43 digits>",
		"x 00010203 04050607 y":                                  "x <17 digits> y",
	} {
		if got := RedactLine(text); got != want {
			t.Errorf("%q: %q, expected %q", text, got, want)
		}
	}
	// The mark for what is kept cannot be smuggled in.
	if got := RedactLine("\uf8ff dst ::1"); !strings.HasSuffix(got, "? dst ::1") {
		t.Errorf("%q", got)
	}
}
