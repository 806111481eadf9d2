package sa

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"
)

type hidden struct{ inner struct{ key Key } }

// Key material never reaches a log, an error, a format verb or JSON.
func TestKeyNeverPrints(t *testing.T) {
	secret := []byte("\xc0\xff rosebud!!")
	key := NewKey(secret)
	var nested hidden
	nested.inner.key = key
	assoc := SA{Name: "a", SPI: 1, EncryptionKey: key, IntegrityKey: key}
	entry := Entry[hidden]{SA: &assoc, Value: nested}

	var out strings.Builder
	for _, v := range []any{
		key, &key, nested, &nested, []Key{key}, map[string]Key{"k": key}, [1]hidden{nested},
		assoc, &assoc, entry, &entry, struct{ any }{key}, fmt.Errorf("%v", key),
		assoc.Check(false, false),
	} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%o", "%b", "%c", "%U", "% x", "%#x", "%t"} {
			fmt.Fprintf(&out, verb+"\n", v)
		}
		fmt.Fprintln(&out, v)
	}
	for _, v := range []any{key, nested, &assoc} {
		b, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		out.Write(b)
		slog.New(slog.NewTextHandler(&out, nil)).Info("text", "v", v)
		slog.New(slog.NewJSONHandler(&out, nil)).Info("json", "v", v)
	}
	if found := leak(out.String(), secret); found != "" {
		t.Errorf("the output holds %q", found)
	}
	if want := "<key, 12 bytes>"; key.String() != want || !strings.Contains(out.String(), want) {
		t.Errorf("expected %q in the output", want)
	}
}

// leak looks for any four bytes of the secret in any notation.
func leak(text string, secret []byte) string {
	lower := strings.ToLower(text)
	for i := range len(secret) - 3 {
		part := secret[i : i+4]
		for _, form := range []string{
			string(part), hex.EncodeToString(part), fmt.Sprintf("% x", part), strings.Trim(fmt.Sprint(part), "[]"),
			strings.Trim(strings.ToLower(fmt.Sprintf("%#v", part)), "[]byte{}"),
		} {
			if strings.Contains(lower, strings.ToLower(form)) {
				return form
			}
		}
	}
	return ""
}

// The search above does find a slice of bytes, in every verb that prints it.
func TestLeakFinds(t *testing.T) {
	secret := []byte("\xc0\xff rosebud!!")
	for _, verb := range []string{"%v", "%#v", "%s", "%x", "% X", "%d"} {
		if leak(fmt.Sprintf(verb, secret), secret) == "" {
			t.Errorf("%s of the secret was not recognised", verb)
		}
	}
}

func TestParseKey(t *testing.T) {
	for text, want := range map[string]string{"0x0102": "\x01\x02", "0XfF": "\xff", "00ab": "\x00\xab"} {
		k, err := ParseKey(text)
		if err != nil || string(k.Bytes()) != want || k.Len() != len(want) {
			t.Errorf("ParseKey(%q): %d bytes, %v", text, k.Len(), err)
		}
	}
	for _, text := range []string{"", "0x", "0x1", "abc", "0xrosebud", "rosebud1", "0x12 34", "0x0X12"} {
		if _, err := ParseKey(text); err == nil || strings.Contains(err.Error(), "rosebud") {
			t.Errorf("ParseKey(%q): %v", text, err)
		}
	}
}

func TestKeyValue(t *testing.T) {
	own := []byte{1, 2, 3}
	k := NewKey(own)
	own[0] = 9
	if !bytes.Equal(k.Bytes(), []byte{1, 2, 3}) {
		t.Error("NewKey kept the caller's slice")
	}
	if !k.Equal(NewKey([]byte{1, 2, 3})) || k.Equal(NewKey(own)) || k.Equal(Key{}) || k.Equal(NewKey([]byte{1, 2})) {
		t.Error("Equal")
	}
	if zero := (Key{}); zero.Len() != 0 || zero.String() != "<key, 0 bytes>" || !zero.Equal(NewKey(nil)) {
		t.Errorf("the zero Key: %v", zero)
	}
}
