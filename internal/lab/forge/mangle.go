package forge

import (
	"bytes"
	"encoding/binary"

	"tapsec/ah"
	"tapsec/esp"
	"tapsec/sa"
	"tapsec/status"
	"tapsec/wire"
)

// Mangle falsifies what one SA seals, so that a packet is wrong although its
// ICV is good. For ESP it gets payload | pad | pad length | next header before
// encryption and returns what to encrypt instead, a multiple of the suite's
// block long. For AH it gets the AH with a zero ICV and all that follows it,
// and returns what to sign, at least an AH long. It may change its argument.
type Mangle func(b []byte) []byte

// Reseal takes apart a packet that SA a sealed under the 64-bit number, lets m
// falsify it, and seals it again under the same number and IV. The packet is
// overwritten.
func Reseal(packet []byte, a *sa.SA, number uint64, m Mangle) []byte {
	p := *parse(packet)
	if a.Protocol == sa.AH {
		return resealAH(packet, p, a, number, m)
	}
	at := p.Header
	if a.Encap {
		at += wire.UDPLen
	}
	return resealESP(packet, p, at, a, number, m)
}

func resealAH(packet []byte, p wire.Packet, a *sa.SA, number uint64, m Mangle) []byte {
	clear(packet[p.Header+ah.FixedLen+a.Suite.IVLen:][:a.Suite.ICVLen])
	packet = append(packet[:p.Header:p.Header], m(packet[p.Header:])...)
	mend(packet)
	p.End, p.Reach = len(packet), len(packet)
	out, err := ah.NewOutbound(a)
	if err == nil {
		err = out.Sign(packet, &p, number)
	}
	if err != nil {
		panic("forge: " + err.Error())
	}
	return packet
}

// resealESP works on the ESP at packet[at:].
func resealESP(packet []byte, p wire.Packet, at int, a *sa.SA, number uint64, m Mangle) []byte {
	in, err := esp.NewInbound(a, 1)
	if err != nil {
		panic("forge: " + err.Error())
	}
	if _, r := in.Open(0, packet[at:], number, &esp.Scratch{}); r != status.Verified {
		panic("forge: not a packet of this SA and number: " + r.String())
	}
	iv := packet[at+esp.HeaderLen:][:a.Suite.IVLen]
	plain := packet[at+esp.HeaderLen+len(iv) : len(packet)-a.Suite.ICVLen]
	out, err := esp.NewOutbound(a, bytes.NewReader(iv))
	if err != nil {
		panic("forge: " + err.Error())
	}
	packet, err = out.SealPlain(packet[:at:at], m(plain), number)
	if err != nil {
		panic("forge: " + err.Error())
	}
	mend(packet)
	if a.Encap {
		binary.BigEndian.PutUint16(packet[p.Header+4:], uint16(len(packet)-p.Header))
		wire.UpperSum(packet, parse(packet))
	}
	return packet
}

// widest is a multiple of every suite's block: adding that many bytes to a
// plaintext keeps it whole.
const widest = 16

// padLen reads the pad length of an ESP plaintext.
func padLen(plain []byte) int { return int(plain[len(plain)-2]) }

// insert makes room for n zero bytes between the payload and the pad.
func insert(plain []byte, n int) []byte {
	at := len(plain) - 2 - padLen(plain)
	tail := append(make([]byte, n), plain[at:]...)
	return append(plain[:at], tail...)
}

// NextHeader gives ESP another next header; 59 makes it a dummy (RFC 4303
// section 2.6).
func NextHeader(next uint8) Mangle {
	return func(plain []byte) []byte {
		plain[len(plain)-1] = next
		return plain
	}
}

// PadLength claims a pad length; 255 is more than a short payload leaves.
func PadLength(n uint8) Mangle {
	return func(plain []byte) []byte {
		plain[len(plain)-2] = n
		return plain
	}
}

// ZeroPad pads ESP with at least 16 bytes, all zero, as some implementations
// do instead of counting (RFC 4303 section 2.4).
func ZeroPad(plain []byte) []byte {
	pad := padLen(plain) + widest
	plain = insert(plain, widest)
	plain[len(plain)-2] = byte(pad)
	clear(plain[len(plain)-2-pad : len(plain)-2])
	return plain
}

// TFC puts at least n zero bytes after ESP's payload, rounded up to a multiple
// of 16: traffic flow confidentiality padding (RFC 4303 section 2.7), which only
// a tunnel's inner length tells from payload.
func TFC(n int) Mangle {
	return func(plain []byte) []byte { return insert(plain, (n+widest-1)/widest*widest) }
}

// Payload makes ESP carry other bytes, correctly padded.
func Payload(payload []byte) Mangle {
	return func(plain []byte) []byte {
		next := plain[len(plain)-1]
		plain = append(plain[:0], payload...)
		pad := 0
		for ; (len(plain)+2)%widest != 0; pad++ {
			plain = append(plain, byte(pad+1))
		}
		return append(plain, byte(pad), next)
	}
}
