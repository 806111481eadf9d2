package tap

import (
	"cmp"
	"fmt"

	"github.com/cilium/ebpf/asm"
)

// Registers of a program.
const (
	packet = asm.R6 // what is loaded from
	at     = asm.R7 // offset of the next header
	kind   = asm.R8 // and its protocol number
	flow   = asm.R9 // the flow's hash so far
)

// program is a list of instructions, the label of the next one, and what its frames are.
type program struct {
	code asm.Instructions
	name string
	from asm.BuiltinFunc // loads bytes of a frame; zero is FnSkbLoadBytes
}

func (p *program) add(code ...asm.Instruction) {
	for _, c := range code {
		if p.name != "" {
			c, p.name = c.WithSymbol(p.name), ""
		}
		p.code = append(p.code, c)
	}
}

// mark labels the next instruction.
func (p *program) mark(name string) { p.name = name }

// load reads bytes at an offset from the next header, in network order, into R0. Beyond the frame's end it
// goes to "none".
func (p *program) load(offset int32, size asm.Size) {
	const scratch = -8
	from := cmp.Or(p.from, asm.FnSkbLoadBytes)
	p.add(
		asm.Mov.Reg(asm.R1, packet), asm.Mov.Reg(asm.R2, at), asm.Add.Imm(asm.R2, offset),
		asm.Mov.Reg(asm.R3, asm.RFP), asm.Add.Imm(asm.R3, scratch), asm.Mov.Imm(asm.R4, int32(size.Sizeof())),
		from.Call(), asm.JNE.Imm(asm.R0, 0, "none"),
		asm.LoadMem(asm.R0, asm.RFP, scratch, size))
	if size != asm.Byte {
		p.add(asm.HostTo(asm.BE, asm.R0, size))
	}
}

// mix adds bytes to the flow's hash.
func (p *program) mix(offset int32, size asm.Size) {
	p.load(offset, size)
	p.add(asm.Xor.Reg(flow, asm.R0))
}

// steerProgram chooses a TAP's queue: the kernel takes the lower 16 bits of the number that it returns,
// modulo the number of queues.
func steerProgram() asm.Instructions {
	var p program
	p.choose(true)
	p.add(asm.Return())
	return p.code
}

// shareProgram makes a packet socket take the frames for its queue whole, and no others.
func shareProgram(queue, queues int) asm.Instructions {
	var p program
	p.choose(false)
	p.add(asm.And.Imm(asm.R0, 0xffff), asm.Mod.Imm(asm.R0, int32(queues)), asm.JEq.Imm(asm.R0, int32(queue), "take"),
		asm.Mov.Imm(asm.R0, 0), asm.Return())
	p.mark("take")
	p.add(asm.Mov.Imm32(asm.R0, -1), asm.Return())
	return p.code
}

// choose leaves in R0 the number by which a frame's queue is chosen, 0 if the frame ends too early.
//
//  1. Step over up to two VLAN tags.
//  2. Take the addresses, step over IPv4 options or IPv6 extension headers.
//  3. The number is the SPI of ESP, of AH, or with natt of ESP in UDP.
//  4. Failing that, it is a hash of addresses, protocol and, unless this is a fragment, ports.
func (p *program) choose(natt bool) {
	const etherType, ipv4, ipv6 = 12, 0x0800, 0x86dd
	p.add(asm.Mov.Reg(packet, asm.R1), asm.Mov.Imm(at, etherType), asm.Mov.Imm(flow, 0))
	p.load(0, asm.Half)
	for _, tag := range []string{"first tag", "second tag"} {
		p.add(asm.JEq.Imm(asm.R0, 0x8100, tag), asm.JNE.Imm(asm.R0, 0x88a8, "untagged"))
		p.mark(tag)
		p.add(asm.Add.Imm(at, tagLength))
		p.load(0, asm.Half)
	}
	p.mark("untagged")
	p.add(asm.Add.Imm(at, 2), asm.JEq.Imm(asm.R0, ipv4, "ipv4"), asm.JEq.Imm(asm.R0, ipv6, "ipv6"))
	p.mark("none")
	p.add(asm.Mov.Imm(asm.R0, 0), asm.Ja.Label("done"))
	p.ipv4()
	p.ipv6()
	p.upper(natt)
	p.mark("done")
}

// ipv4 follows RFC 791 section 3.1.
func (p *program) ipv4() {
	p.mark("ipv4")
	p.load(9, asm.Byte)
	p.add(asm.Mov.Reg(kind, asm.R0))
	p.mix(12, asm.Word)
	p.mix(16, asm.Word)
	p.load(6, asm.Half)
	p.add(asm.And.Imm(asm.R0, 0x3fff), asm.JNE.Imm(asm.R0, 0, "hash")) // a fragment
	p.load(0, asm.Byte)
	p.add(asm.And.Imm(asm.R0, 15), asm.LSh.Imm(asm.R0, 2), asm.Add.Reg(at, asm.R0), asm.Ja.Label("upper"))
}

// ipv6 follows RFC 8200 sections 3 and 4.
func (p *program) ipv6() {
	const header, addresses, extensions = 40, 8, 8
	const hopByHop, routing, fragment, destination = 0, 43, 44, 60
	p.mark("ipv6")
	p.load(6, asm.Byte)
	p.add(asm.Mov.Reg(kind, asm.R0))
	for offset := int32(addresses); offset < header; offset += 4 {
		p.mix(offset, asm.Word)
	}
	p.add(asm.Add.Imm(at, header))
	for i := range extensions {
		next := fmt.Sprint("extension ", i)
		p.add(asm.JEq.Imm(kind, hopByHop, next), asm.JEq.Imm(kind, routing, next),
			asm.JEq.Imm(kind, fragment, "hash"), asm.JNE.Imm(kind, destination, "upper"))
		p.mark(next)
		p.load(0, asm.Byte)
		p.add(asm.Mov.Reg(kind, asm.R0))
		p.load(1, asm.Byte)
		p.add(asm.LSh.Imm(asm.R0, 3), asm.Add.Imm(asm.R0, 8), asm.Add.Reg(at, asm.R0))
	}
}

// upper looks for an SPI, else for ports, which TCP, UDP and SCTP have in the same place.
func (p *program) upper(natt bool) {
	const tcp, udp, esp, ah, sctp, port, golden = 6, 17, 50, 51, 132, 4500, 0x61c88647
	p.mark("upper")
	p.add(asm.JEq.Imm(kind, esp, "spi"), asm.JEq.Imm(kind, ah, "ah"),
		asm.JEq.Imm(kind, tcp, "ports"), asm.JEq.Imm(kind, sctp, "ports"), asm.JNE.Imm(kind, udp, "hash"))
	if natt {
		p.load(2, asm.Half)
		p.add(asm.JNE.Imm(asm.R0, port, "ports"))
		p.load(8, asm.Word)
		p.add(asm.JNE.Imm(asm.R0, 0, "done")) // else it is IKE
	}
	p.mark("ports")
	p.mix(0, asm.Word)
	p.mark("hash")
	p.add(asm.Xor.Reg(flow, kind), asm.Mov.Reg32(asm.R0, flow), asm.Mul.Imm32(asm.R0, golden), asm.RSh.Imm32(asm.R0, 16),
		asm.Ja.Label("done"))
	p.mark("ah")
	p.add(asm.Add.Imm(at, 4))
	p.mark("spi")
	p.load(0, asm.Word)
}
