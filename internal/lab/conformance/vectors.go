package conformance

import (
	"embed"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io/fs"
	"slices"
	"strconv"
	"strings"

	"tapsec/configs"
	"tapsec/internal/lab/forge"
	"tapsec/internal/lab/vector"
	"tapsec/sa"
	"tapsec/status"
	"tapsec/wire"
)

const ethernetLen = 14 // without tags

//go:embed vectors
var files embed.FS

// Vectors returns the packets that other implementations and standards made, a
// setup for each vector, in the order of the files. Each good one is followed by
// the same packet damaged. A file's first block names its source; the fields of
// the others are
//
//	name    what the source calls the case, and what was changed in it
//	sa      an SA as in a configuration, again for each one; without any, the
//	        frame is for the NIC of the block before
//	frame   as it comes from the wire, hexadecimal
//	packet  instead of a frame: without its Ethernet header
//	word    that the NIC must answer
//	reason  of the frame
//	record  what must be told of an IPsec header, again for each one, as Record
//	        writes it
//	plain   offset and bytes that the NIC must have put in the place of
//	        ciphertext, again for each portion; all other bytes stay
//	opened  the packet that must be left in Decap form, where the source has it
func Vectors() []Setup {
	var setups []Setup
	err := fs.WalkDir(files, "vectors", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		text, err := files.ReadFile(path)
		if err == nil {
			name := strings.TrimSuffix(strings.TrimPrefix(path, "vectors/"), ".txt")
			setups, err = appendVectors(setups, name, string(text))
		}
		return err
	})
	if err != nil {
		panic("conformance: " + err.Error())
	}
	n := 0
	for _, l := range setups {
		for i := range l.Cases {
			l.Cases[i].order = n
			n++
		}
	}
	return setups
}

// appendVectors appends the setups of a file's text.
func appendVectors(setups []Setup, name, text string) ([]Setup, error) {
	source := Source{Name: name}
	for _, b := range vector.Parse(text) {
		if s := b.Get("source"); s != "" {
			source.Text = s
			continue
		}
		if sas, ok := b["sa"]; ok {
			c, err := configs.Parse(name, []byte("allow_legacy: true\nsas: ["+strings.Join(sas, ", ")+"]"))
			if err != nil {
				return nil, fmt.Errorf("%s, %s: %w", name, b.Get("name"), err)
			}
			setups = append(setups, Setup{Name: name, Profile: profile("full"), Bundles: c.Bundles()})
		}
		c, err := readCase(b)
		if err != nil {
			return nil, fmt.Errorf("%s, %s: %w", name, b.Get("name"), err)
		}
		c.Source = source
		l := &setups[len(setups)-1]
		l.Cases = append(append(l.Cases, c), damaged(&c)...)
	}
	return setups, nil
}

// readCase reads a block.
func readCase(b vector.Block) (Case, error) {
	c := Case{Title: b.Get("name"), Records: b["record"]}
	var err error
	if c.Frame, err = readFrame(b); err != nil {
		return c, err
	}
	w, err := strconv.ParseUint(b.Get("word"), 16, 32)
	if err != nil {
		return c, fmt.Errorf("word: %w", err)
	}
	c.Word = status.Word(w)
	i := slices.IndexFunc(status.Reasons(), func(r status.Reason) bool { return r.String() == b.Get("reason") })
	if i < 0 {
		return c, fmt.Errorf("no reason is called %q", b.Get("reason"))
	}
	c.Reason = status.Reasons()[i]
	if c.InPlace, err = overwritten(c.Frame, b["plain"]); err != nil {
		return c, err
	}
	c.Decap, err = decapsulated(c.Frame, b.Get("opened"))
	return c, err
}

func readFrame(b vector.Block) ([]byte, error) {
	if packet, ok := b["packet"]; ok {
		p, err := hex.DecodeString(packet[0])
		if err != nil || len(p) == 0 {
			return nil, fmt.Errorf("packet: %d bytes, %w", len(p), err)
		}
		return forge.AppendFrame(nil, p), nil
	}
	f, err := hex.DecodeString(b.Get("frame"))
	if err != nil || len(f) < ethernetLen {
		return nil, fmt.Errorf("frame: %d bytes, %w", len(f), err)
	}
	return f, nil
}

// overwritten is the frame with plaintexts written into it, each "offset
// bytes".
func overwritten(frame []byte, plain []string) ([]byte, error) {
	out := slices.Clone(frame)
	for _, p := range plain {
		var at int
		var text []byte
		if _, err := fmt.Sscanf(p, "%d %x", &at, &text); err != nil {
			return nil, fmt.Errorf("plain: %w", err)
		}
		if at+len(text) > len(out) {
			return nil, fmt.Errorf("plain: %d bytes at %d of %d", len(text), at, len(out))
		}
		copy(out[at:], text)
	}
	return out, nil
}

// decapsulated is the packet after the MAC addresses of a frame without tags.
func decapsulated(frame []byte, packet string) ([]byte, error) {
	if packet == "" {
		return nil, nil
	}
	p, err := hex.DecodeString(packet)
	if err != nil {
		return nil, fmt.Errorf("opened: %w", err)
	}
	out := binary.BigEndian.AppendUint16(slices.Clone(frame[:ethernetLen-2]), wire.EtherTypeOf(p[0]>>4))
	return append(out, p...), nil
}

// Record writes what a trailer says of an IPsec header in the form that cases
// have: portion, protocol, SPI, number and state and, if the ICV is valid, the
// payload's offset and length, the pad's length and the next header.
func Record(r *status.Record) string {
	line := fmt.Sprintf("%s %s 0x%08x %d %s", r.Portion, sa.Protocol(r.Protocol), r.SPI, r.Number, r.State)
	if r.State == status.ICVValid {
		line += fmt.Sprintf(" payload %d+%d pad %d next %d", r.Payload, r.PayloadLen, r.PadLen, r.NextHeader)
	}
	return line
}
