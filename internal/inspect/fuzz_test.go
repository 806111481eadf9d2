package inspect

import "testing"

// FuzzParseExpectation: whatever stands in the file of --expect is refused, or can be compared.
func FuzzParseExpectation(f *testing.F) {
	for _, text := range []string{`{"good": 3}`, `{"sas": [{"sa": "gateway", "spi": "0x00001001", "failed": {"esp-icv": 1}}]}`, `{"others": {"headers": 1}, "silent": ["host"]}`,
		`{"sas": [{"protocol": "esp", "diagnosis": [{"certain": true}]}]}`, `{"good": -1}`, `{"sas": null}`, `[]`, `{} {}`} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		e, err := parseExpectation(text)
		if err != nil {
			return
		}
		if len(e.fields) == 0 {
			t.Fatalf("%q expects nothing", text)
		}
		_ = e.Check(&Summary{})
	})
}
