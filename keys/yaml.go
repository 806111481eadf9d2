package keys

import (
	"fmt"
	"io"
	"strconv"
	"strings"

	"tapsec/sa"
)

// WriteYAML prints the SAs as a configuration of tapsec, keys included. Errors
// are the writer's.
func WriteYAML(w io.Writer, sas []*sa.SA) error {
	var b strings.Builder
	for _, s := range sas {
		if s.Suite.Legacy() {
			b.WriteString("allow_legacy: true\n")
			break
		}
	}
	b.WriteString("sas:\n")
	for _, s := range sas {
		writeSA(&b, s)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func writeSA(b *strings.Builder, s *sa.SA) {
	indent := "  - "
	field := func(given bool, format string, args ...any) {
		if given {
			fmt.Fprintf(b, indent+format+"\n", args...)
			indent = "    "
		}
	}
	field(true, "name: %s", strconv.Quote(s.Name))
	field(true, "spi: 0x%08x", s.SPI)
	field(s.Src.IsValid(), `src: "%s"`, s.Src)
	field(s.Dst.IsValid(), `dst: "%s"`, s.Dst)
	field(true, "protocol: %s", s.Protocol)
	field(true, "mode: %s", s.Mode)
	field(s.Direction != sa.AnyDirection, "direction: %s", s.Direction)
	field(true, "suite: %s", s.Suite.Name)
	field(s.EncryptionKey.Len() > 0, "encryption_key: %s", hexKey(s.EncryptionKey))
	field(s.IntegrityKey.Len() > 0, "integrity_key: %s", hexKey(s.IntegrityKey))
	field(s.ESN, "esn: true")
	field(s.SeqHigh > 0, "seq_high: %d", s.SeqHigh)
	field(s.Seq > 0, "seq: 0x%x", s.Seq)
	field(s.Bitmap != nil, "bitmap: %s", s.Bitmap)
	field(s.OSeq > 0, "oseq: 0x%x", s.OSeq)
	field(s.Encap, "encap: {port: %d}", sa.EncapPort)
	field(s.EncapSrc != 0, "encap_src: %d", s.EncapSrc)
	field(s.EncapDst != 0, "encap_dst: %d", s.EncapDst)
	field(s.Bundle != "", "bundle: %s", strconv.Quote(s.Bundle))
	field(s.Offload != sa.Required, "offload: %s", s.Offload)
	field(s.Window > 0, "window: %d", s.Window)
	field(s.ReplayOff, "replay_off: true")
	field(!s.PadCheck, "pad_check: false")
	if s.Selector != nil {
		field(true, "selector: {%s}", selectorFields(*s.Selector))
	}
	if s.Lifetimes != (sa.Lifetimes{}) {
		field(true, "lifetimes: {soft: {%s}, hard: {%s}}", limitFields(s.Lifetimes.Soft), limitFields(s.Lifetimes.Hard))
	}
}

func selectorFields(s sa.Selector) string {
	var f []string
	if s.Src.IsValid() {
		f = append(f, fmt.Sprintf(`src: "%s"`, s.Src))
	}
	if s.Dst.IsValid() {
		f = append(f, fmt.Sprintf(`dst: "%s"`, s.Dst))
	}
	if s.Protocol != 0 {
		f = append(f, fmt.Sprintf("protocol: %d", s.Protocol))
	}
	if p := s.SrcPorts; p != (sa.Ports{}) {
		f = append(f, fmt.Sprintf("src_ports: %d-%d", p.First, p.Last))
	}
	if p := s.DstPorts; p != (sa.Ports{}) {
		f = append(f, fmt.Sprintf("dst_ports: %d-%d", p.First, p.Last))
	}
	return strings.Join(f, ", ")
}

func limitFields(l sa.Limit) string {
	return fmt.Sprintf("time: %s, bytes: %d, packets: %d", l.Time, l.Bytes, l.Packets)
}
