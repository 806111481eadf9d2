package keys

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"tapsec/sa"
)

// field is a field of a configuration. Its value is a word, text that needs quotes in YAML, a
// bool, or fields.
type field struct {
	name  string
	value any
}

// quoted is text that YAML may take for something else.
type quoted string

// WriteYAML prints the SAs as a configuration of tapsec, keys included. Errors
// are the writer's.
func WriteYAML(w io.Writer, sas []*sa.SA) error {
	var b strings.Builder
	if anyLegacy(sas) {
		b.WriteString("allow_legacy: true\n")
	}
	b.WriteString("sas:\n")
	for _, s := range sas {
		indent := "  - "
		for _, f := range fieldsOf(s, hexKey) {
			fmt.Fprintf(&b, "%s%s: %s\n", indent, f.name, yamlValue(f.value))
			indent = "    "
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// Fields are an SA's fields for encoding/json, as WriteJSON has them.
func Fields(s *sa.SA) any { return jsonValue(fieldsOf(s, hexKey)) }

// HiddenFields are Fields with the lengths of the keys in place of them.
func HiddenFields(s *sa.SA) any { return jsonValue(fieldsOf(s, sa.Key.String)) }

// WriteJSON prints them as WriteYAML does, in JSON.
func WriteJSON(w io.Writer, sas []*sa.SA) error {
	list := make([]any, len(sas))
	for i, s := range sas {
		list[i] = Fields(s)
	}
	doc := map[string]any{"sas": list}
	if anyLegacy(sas) {
		doc["allow_legacy"] = true
	}
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	return e.Encode(doc)
}

func anyLegacy(sas []*sa.SA) bool {
	return slices.ContainsFunc(sas, func(s *sa.SA) bool { return s.Suite.Legacy() })
}

func yamlValue(v any) string {
	switch v := v.(type) {
	case quoted:
		return strconv.Quote(string(v))
	case []field:
		var all []string
		for _, f := range v {
			all = append(all, f.name+": "+yamlValue(f.value))
		}
		return "{" + strings.Join(all, ", ") + "}"
	}
	return fmt.Sprint(v)
}

func jsonValue(v any) any {
	fields, ok := v.([]field)
	if !ok {
		return v
	}
	object := map[string]any{}
	for _, f := range fields {
		object[f.name] = jsonValue(f.value)
	}
	return object
}

// fieldsOf gives the fields of an SA that differ from their defaults.
func fieldsOf(s *sa.SA, key func(sa.Key) string) (all []field) {
	add := func(given bool, name string, value any) {
		if given {
			all = append(all, field{name, value})
		}
	}
	add(true, "name", quoted(s.Name))
	add(true, "spi", sa.SPI(s.SPI).String())
	add(s.Src.IsValid(), "src", quoted(s.Src.String()))
	add(s.Dst.IsValid(), "dst", quoted(s.Dst.String()))
	add(true, "protocol", s.Protocol.String())
	add(true, "mode", s.Mode.String())
	add(s.Direction != sa.AnyDirection, "direction", s.Direction.String())
	add(s.ReqID != 0, "reqid", fmt.Sprint(s.ReqID))
	add(true, "suite", s.Suite.Name)
	add(s.EncryptionKey.Len() > 0, "encryption_key", key(s.EncryptionKey))
	add(s.IntegrityKey.Len() > 0, "integrity_key", key(s.IntegrityKey))
	add(s.ESN, "esn", true)
	add(s.SeqHigh > 0, "seq_high", fmt.Sprint(s.SeqHigh))
	add(s.Seq > 0, "seq", fmt.Sprintf("0x%x", s.Seq))
	add(s.Bitmap != nil, "bitmap", s.Bitmap.String())
	add(s.OSeq > 0, "oseq", fmt.Sprintf("0x%x", s.OSeq))
	add(s.Encap, "encap", []field{{"port", fmt.Sprint(sa.EncapPort)}})
	add(s.EncapSrc != 0, "encap_src", fmt.Sprint(s.EncapSrc))
	add(s.EncapDst != 0, "encap_dst", fmt.Sprint(s.EncapDst))
	add(s.Bundle != "", "bundle", quoted(s.Bundle))
	add(s.Offload != sa.Required, "offload", s.Offload.String())
	add(s.Window > 0, "window", fmt.Sprint(s.Window))
	add(s.ReplayOff, "replay_off", true)
	add(!s.PadCheck, "pad_check", false)
	if s.Selector != nil {
		add(true, "selector", selectorFields(s.Selector))
	}
	if s.Lifetimes != (sa.Lifetimes{}) {
		add(true, "lifetimes", []field{{"soft", limitFields(s.Lifetimes.Soft)}, {"hard", limitFields(s.Lifetimes.Hard)}})
	}
	return all
}

func selectorFields(s *sa.Selector) (all []field) {
	if s.Src.IsValid() {
		all = append(all, field{"src", quoted(s.Src.String())})
	}
	if s.Dst.IsValid() {
		all = append(all, field{"dst", quoted(s.Dst.String())})
	}
	if s.Protocol != 0 {
		all = append(all, field{"protocol", fmt.Sprint(s.Protocol)})
	}
	if p := s.SrcPorts; p != (sa.Ports{}) {
		all = append(all, field{"src_ports", fmt.Sprintf("%d-%d", p.First, p.Last)})
	}
	if p := s.DstPorts; p != (sa.Ports{}) {
		all = append(all, field{"dst_ports", fmt.Sprintf("%d-%d", p.First, p.Last)})
	}
	return all
}

func limitFields(l sa.Limit) []field {
	return []field{{"time", l.Time.String()}, {"bytes", fmt.Sprint(l.Bytes)}, {"packets", fmt.Sprint(l.Packets)}}
}
