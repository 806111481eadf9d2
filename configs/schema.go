package configs

import (
	"encoding"
	"encoding/json"
	"net/netip"
	"reflect"
	"time"

	"tapsec/sa"
)

// object is a piece of a JSON schema.
type object map[string]any

// Schema is the JSON schema (draft 2020-12) of a configuration, for editors that complete and
// check. It is made from the types that the loader fills. It cannot say how fields must fit
// together; tapsec validate does.
func Schema() ([]byte, error) {
	s := schemaOf(reflect.TypeFor[Config]())
	s["$schema"], s["title"] = "https://json-schema.org/draft/2020-12/schema", "tapsec configuration"
	return json.MarshalIndent(s, "", "  ")
}

func words(names ...string) object { return object{"enum": names} }

// numeral is a number, also as text such as 0xc001.
var numeral = object{"anyOf": []object{{"type": "integer", "minimum": 0}, {"type": "string", "pattern": "^(0x[0-9a-fA-F_]+|[0-9_]+)$"}}}

// schemas are those of types that are a single value in the file.
var schemas = map[reflect.Type]object{
	reflect.TypeFor[sa.Profile]():    words(sa.ProfileNames()...),
	reflect.TypeFor[sa.Protocol]():   words("esp", "ah"),
	reflect.TypeFor[sa.Mode]():       words("transport", "tunnel", "auto"),
	reflect.TypeFor[sa.Direction]():  words("in", "out"),
	reflect.TypeFor[sa.Offload]():    words("required", "preferred", "never"),
	reflect.TypeFor[sa.Action]():     words("protect", "bypass", "discard"),
	reflect.TypeFor[Form]():          words(string(InPlace), string(Decap)),
	reflect.TypeFor[Annotate]():      words(string(Trailer), string(None)),
	reflect.TypeFor[OnFailure]():     {"type": "string", "pattern": "^(drop|mirror .+)$"},
	reflect.TypeFor[sa.Key]():        {"anyOf": []object{{"type": "integer"}, {"type": "string", "pattern": "^\\s*((0[xX])?([0-9a-fA-F]{2})+|file:.+)\\s*$"}}}, // 0x and digits without quotes are an integer to others
	reflect.TypeFor[sa.Ports]():      {"anyOf": []object{{"type": "integer"}, {"type": "string", "pattern": "^[0-9]+(-[0-9]+)?$"}}},
	reflect.TypeFor[netip.Addr]():    {"type": "string"},
	reflect.TypeFor[netip.Prefix]():  {"type": "string"},
	reflect.TypeFor[time.Duration](): {"type": "string", "pattern": "^[0-9hmsuµn.]+$"},
	reflect.TypeFor[uint8]():         {"anyOf": []object{words("any", "icmp", "tcp", "udp", "icmpv6", "sctp"), numeral}},
	reflect.TypeFor[string]():        {"type": []string{"string", "integer"}},
	reflect.TypeFor[suite]():         {"type": []string{"string", "null"}},
	reflect.TypeFor[bool]():          {"type": "boolean"},
}

func schemaOf(t reflect.Type) object {
	if s, ok := schemas[t]; ok {
		return s
	}
	if t == reflect.TypeFor[sa.SA]() {
		t = reflect.TypeFor[saFields]()
	}
	if reflect.PointerTo(t).Implements(reflect.TypeFor[encoding.TextUnmarshaler]()) {
		return object{"type": []string{"string", "integer"}}
	}
	switch t.Kind() {
	case reflect.Pointer:
		return schemaOf(t.Elem())
	case reflect.Slice:
		return object{"type": []string{"array", "null"}, "items": schemaOf(t.Elem())}
	case reflect.Struct:
		fields := object{}
		for name, field := range fieldsOf(t) {
			fields[name] = schemaOf(t.FieldByIndex(field.index).Type)
		}
		return object{"type": "object", "properties": fields, "additionalProperties": false}
	}
	return numeral
}
