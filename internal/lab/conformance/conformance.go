// Package conformance is the receive contract as frames: for every row of its table at
// least one frame, the NIC it is for, and the word that the NIC must answer. The bytes are
// the same each time. It also has packets that others made (vectors), with every byte that
// must come out.
//
// It sends frames to a NIC that it is given, compares and reports. It has no NIC of its
// own.
package conformance

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"

	"tapsec/internal/lab/forge"
	"tapsec/internal/outbound"
	"tapsec/sa"
	"tapsec/status"
)

// Source is the authority for what must become of a frame.
type Source struct {
	Name string // short: the vectors' file, or "contract"
	Text string // what that is, with a date if it changes
}

var contract = Source{"contract", "docs/contract.md, each row of its table"}

// Case is one frame and what the NIC must say about it.
type Case struct {
	Source Source
	Row    string // of the contract's table (docs/contract.md); empty for vectors
	Title  string
	Frame  []byte // as it comes from the wire
	Word   status.Word
	Reason status.Reason

	// Vectors say this as well; nil demands nothing.
	Records []string // as Record writes them, outermost first
	InPlace []byte   // the frame as delivered in place, without padding
	Decap   []byte   // the same in Decap form, if that removes headers

	order int // among the vectors
}

// Setup is a NIC as some cases need it, and those cases.
type Setup struct {
	Name     string
	Profile  sa.Profile
	Bundles  [][]*sa.SA // to be offloaded: one SA, or AH and ESP
	Delete   []string   // SAs to be deleted again before the frames are sent
	ESPOff   bool
	Inactive bool
	Pressure bool // the SA table asks for deletions
	Cases    []Case
}

// Contract returns the whole table.
func Contract() []Setup {
	return []Setup{
		plain(), layers(), bundles(), malformed(), inside(), undecided(),
		noCombined(), noAHESP(), pressure(), deleted(), switchedOff(), inactive(),
	}
}

// SAD is what a setup needs of a NIC.
type SAD interface {
	Add(bundle ...*sa.SA) (handle uint32, err error)
	Delete(handle uint32) error
	Activate(on bool)
	Switch(ah, esp bool)
	ForcePressure(on bool)
}

// Arrange prepares an empty NIC of the setup's profile for its cases.
func (l *Setup) Arrange(d SAD) error {
	gone := map[string]bool{}
	for _, name := range l.Delete {
		gone[name] = true
	}
	for _, b := range l.Bundles {
		handle, err := d.Add(b...)
		if err == nil && gone[b[0].Name] {
			err = d.Delete(handle)
		}
		if err != nil {
			return err
		}
	}
	d.Activate(!l.Inactive)
	d.Switch(true, !l.ESPOff)
	d.ForcePressure(l.Pressure)
	return nil
}

// builder makes SAs and frames from names, so that every run makes the same ones.
type builder struct {
	sas    map[string]*sa.SA
	number uint64 // the sequence number of the latest frame
}

// key derives n bytes from a name.
func key(name string, n int) sa.Key {
	var b []byte
	for i := byte(0); len(b) < n; i++ {
		sum := sha256.Sum256(append([]byte(name), i))
		b = append(b, sum[:]...)
	}
	return sa.NewKey(b[:n])
}

// add makes an SA; the change, if any, comes last.
func (k *builder) add(name string, p sa.Protocol, m sa.Mode, suite string, change func(*sa.SA)) *sa.SA {
	su, err := sa.ParseSuite(p, suite)
	if err != nil {
		panic("conformance: " + err.Error())
	}
	s := &sa.SA{
		Name: name, SPI: 0x1001 + uint32(len(k.sas)), Protocol: p, Mode: m, Suite: su, PadCheck: true,
		EncryptionKey: key(name+" encryption", su.EncryptionKeyLen()),
		IntegrityKey:  key(name+" integrity", su.IntegrityKeyLen()),
		Src:           hostA, Dst: hostB,
	}
	if m == sa.Tunnel {
		s.Src, s.Dst = gatewayA, gatewayB
	}
	if change != nil {
		change(s)
	}
	k.sas[name] = s
	return s
}

// bundle makes an AH over an ESP SA, one portion.
func (k *builder) bundle(name string, m sa.Mode) []*sa.SA {
	e := k.add(name+"-esp", sa.ESP, m, "aes128gcm16", nil)
	a := k.add(name+"-ah", sa.AH, m, "sha256", func(s *sa.SA) { s.Bundle = e.Name })
	return []*sa.SA{a, e}
}

// seal applies the named SAs to a packet, innermost first.
func (k *builder) seal(packet []byte, names ...string) []byte { return k.mangle(packet, nil, names...) }

// mangle is seal, but falsifies what the innermost SA seals.
func (k *builder) mangle(packet []byte, m forge.Mangle, names ...string) []byte {
	var sas []*sa.SA
	for _, n := range names {
		sas = append(sas, k.sas[n])
	}
	s, err := outbound.NewSealer(forge.Zeros{}, sas...)
	if err != nil {
		panic("conformance: " + err.Error())
	}
	k.number++
	for i, a := range sas {
		s.SetNumber(i, k.number)
		if packet, err = s.Stack(i).Seal(nil, packet); err != nil {
			panic("conformance: " + err.Error())
		}
		if i == 0 && m != nil {
			packet = forge.Reseal(packet, a, k.number, m)
		}
	}
	return packet
}

// add adds a case of the contract.
func (l *Setup) add(c Case) {
	c.Source = contract
	l.Cases = append(l.Cases, c)
}

// expect adds a case whose frame carries packet.
func (l *Setup) expect(row, title string, packet []byte, w status.Word, r status.Reason) {
	l.add(Case{Row: row, Title: title, Frame: forge.AppendFrame(nil, packet), Word: w, Reason: r})
}

func word(flags status.Word, c status.Code) status.Word { return flags.WithCode(c) }

const (
	one  = status.CryptoDone
	both = status.CryptoDone | status.NextCryptoDone
)

// corrupt flips the last bit of a packet: in ESP's ICV, or in what AH covers.
func corrupt(packet []byte) []byte {
	packet[len(packet)-1] ^= 1
	return packet
}

// cut shortens an IPv4 packet by n bytes, also in its header, whose checksum no NIC
// checks.
func cut(packet []byte, n int) []byte {
	packet = packet[:len(packet)-n]
	binary.BigEndian.PutUint16(packet[2:], uint16(len(packet)))
	return packet
}

func profile(name string) sa.Profile {
	p, err := sa.ProfileByName(name)
	if err != nil {
		panic(fmt.Sprintf("conformance: %v", err))
	}
	return p
}
