package tap

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"golang.org/x/sys/unix"
)

// Steering is by what the kernel chooses one of several queues for a frame that it hands to the
// program. Its text is auto, spi or flow.
type Steering uint8

const (
	SteerAuto Steering = iota // SteerSPI where such a program may be loaded, else SteerFlow
	SteerSPI                  // the outermost SPI; see Steer
	SteerFlow                 // the kernel's own hash of addresses and ports or SPI: all SAs in UDP between two hosts are one flow
)

var steeringNames = []string{SteerAuto: "auto", SteerSPI: "spi", SteerFlow: "flow"}

func (s Steering) String() string { return nameOf(steeringNames, s) }

// MarshalText returns the steering's name.
func (s Steering) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText takes the steering's name.
func (s *Steering) UnmarshalText(text []byte) error { return named(s, "steering", steeringNames, text) }

// CanSteer tells why no program that steers by SPI can be loaded; nil if one can. It loads one.
func CanSteer() error {
	p, err := loadSteering()
	if err != nil {
		return err
	}
	return p.Close()
}

// Steer has the kernel choose the queue of each frame that it hands to the program, and returns by
// what it does so now, SteerSPI or SteerFlow, with the reason in a sentence where that was left to it.
//
// By SPI a frame goes to the queue that the SPI's lower 16 bits are modulo the number of queues,
// whatever else it holds, so that an SA's frames stay in order and its window on one core. The SPI is that of the outermost ESP or AH
// header, behind VLAN tags, IPv4 options, up to eight IPv6 extension headers, and a UDP header to
// port 4500 (RFC 3948). A fragment goes by its addresses, other packets by addresses and ports, what
// is neither IPv4 nor IPv6 or too short to the first queue.
func (d *Device) Steer(by Steering) (now Steering, why string, err error) {
	if d.out != nil || len(d.queues) == 1 {
		return SteerFlow, "there is one queue", nil
	}
	why = "asked for"
	if by != SteerFlow {
		err := d.steerBySPI()
		switch {
		case err == nil && by == SteerAuto:
			return SteerSPI, "a program that reads it was loaded", nil
		case err == nil:
			return SteerSPI, why, nil
		case by == SteerSPI:
			return by, "", fmt.Errorf("steer %s by SPI: %w", d.name, err)
		}
		why = err.Error()
	}
	return SteerFlow, why, d.setSteering(-1) // one that attached before may have left a program
}

func (d *Device) steerBySPI() error {
	p, err := loadSteering()
	if err != nil {
		return err
	}
	defer p.Close() // the interface keeps it
	return d.setSteering(p.FD())
}

func (d *Device) setSteering(program int) error {
	return control(d.queues[0], func(fd int) error {
		return unix.IoctlSetPointerInt(fd, unix.TUNSETSTEERINGEBPF, program)
	})
}

// loadSteering loads the program into the kernel.
func loadSteering() (*ebpf.Program, error) {
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{Name: "tapsec_steer", Type: ebpf.SocketFilter,
		License: "Apache-2.0", Instructions: steerProgram()})
	switch {
	case err == nil:
		return p, nil
	case errors.Is(err, unix.EPERM):
		return nil, fmt.Errorf("loading a program that reads the SPI needs CAP_BPF outside any user namespace (%w)", unix.EPERM)
	}
	return nil, fmt.Errorf("load a program that reads the SPI: %w", err)
}

// Registers of the program.
const (
	packet = asm.R6 // what loads are from
	at     = asm.R7 // offset of the header that is next
	kind   = asm.R8 // and its protocol number
	flow   = asm.R9 // what the flow's hash is made of
)

// steerProgram chooses the queue: of what it returns the kernel takes the lower 16 bits modulo the
// number of queues. A load from behind the frame's end ends it with 0.
//
//  1. Step over up to two VLAN tags.
//  2. Take the addresses, step over IPv4 options or IPv6 extension headers.
//  3. Return the SPI of ESP, of AH, or of ESP in UDP.
//  4. Return a hash of addresses, protocol and, unless it is a fragment, ports.
func steerProgram() (p asm.Instructions) {
	const etherType, ipv4, ipv6 = 12, 0x0800, 0x86dd
	p = append(p, asm.Mov.Reg(packet, asm.R1), asm.Mov.Imm(at, etherType), asm.Mov.Imm(flow, 0), load(0, asm.Half))
	for _, tag := range []string{"first", "second"} {
		p = append(p,
			asm.JEq.Imm(asm.R0, 0x8100, tag), asm.JNE.Imm(asm.R0, 0x88a8, "untagged"),
			asm.Add.Imm(at, tagLength).WithSymbol(tag), load(0, asm.Half))
	}
	p = append(p,
		asm.Add.Imm(at, 2).WithSymbol("untagged"),
		asm.JEq.Imm(asm.R0, ipv4, "ipv4"), asm.JEq.Imm(asm.R0, ipv6, "ipv6"),
		asm.Mov.Imm(asm.R0, 0), asm.Return())
	p = append(p, steerIPv4()...)
	p = append(p, steerIPv6()...)
	return append(p, steerUpper()...)
}

// load reads bytes at an offset from the header that is next, in network order, into R0.
func load(offset int32, size asm.Size) asm.Instruction {
	return asm.LoadInd(asm.R0, at, offset, size)
}

// steerIPv4 follows RFC 791 section 3.1.
func steerIPv4() asm.Instructions {
	return asm.Instructions{
		load(9, asm.Byte).WithSymbol("ipv4"), asm.Mov.Reg(kind, asm.R0),
		load(12, asm.Word), asm.Xor.Reg(flow, asm.R0), load(16, asm.Word), asm.Xor.Reg(flow, asm.R0),
		load(6, asm.Half), asm.And.Imm(asm.R0, 0x3fff), asm.JNE.Imm(asm.R0, 0, "hash"), // a fragment
		load(0, asm.Byte), asm.And.Imm(asm.R0, 15), asm.LSh.Imm(asm.R0, 2), asm.Add.Reg(at, asm.R0),
		asm.Ja.Label("upper"),
	}
}

// steerIPv6 follows RFC 8200 sections 3 and 4.
func steerIPv6() (p asm.Instructions) {
	const header, addresses, extensions = 40, 8, 8
	const hopByHop, routing, fragment, destination = 0, 43, 44, 60
	p = append(p, load(6, asm.Byte).WithSymbol("ipv6"), asm.Mov.Reg(kind, asm.R0))
	for offset := int32(addresses); offset < header; offset += 4 {
		p = append(p, load(offset, asm.Word), asm.Xor.Reg(flow, asm.R0))
	}
	p = append(p, asm.Add.Imm(at, header))
	for i := range extensions {
		next := fmt.Sprint("extension ", i)
		p = append(p,
			asm.JEq.Imm(kind, hopByHop, next), asm.JEq.Imm(kind, routing, next),
			asm.JEq.Imm(kind, fragment, "hash"), asm.JNE.Imm(kind, destination, "upper"),
			load(0, asm.Byte).WithSymbol(next), asm.Mov.Reg(kind, asm.R0),
			load(1, asm.Byte), asm.LSh.Imm(asm.R0, 3), asm.Add.Imm(asm.R0, 8), asm.Add.Reg(at, asm.R0))
	}
	return p
}

// steerUpper looks for an SPI, else for ports, which TCP, UDP and SCTP have in the same place.
func steerUpper() asm.Instructions {
	const tcp, udp, esp, ah, sctp, natt, golden = 6, 17, 50, 51, 132, 4500, 0x61c88647
	return asm.Instructions{
		asm.JEq.Imm(kind, esp, "spi").WithSymbol("upper"), asm.JEq.Imm(kind, ah, "ah"),
		asm.JEq.Imm(kind, tcp, "ports"), asm.JEq.Imm(kind, sctp, "ports"), asm.JNE.Imm(kind, udp, "hash"),
		load(2, asm.Half), asm.JNE.Imm(asm.R0, natt, "ports"),
		load(8, asm.Word), asm.JNE.Imm(asm.R0, 0, "done"), // else it is IKE
		load(0, asm.Word).WithSymbol("ports"), asm.Xor.Reg(flow, asm.R0),
		asm.Xor.Reg(flow, kind).WithSymbol("hash"),
		asm.Mov.Reg32(asm.R0, flow), asm.Mul.Imm32(asm.R0, golden), asm.RSh.Imm32(asm.R0, 16),
		asm.Return().WithSymbol("done"),
		asm.Add.Imm(at, 4).WithSymbol("ah"),
		load(0, asm.Word).WithSymbol("spi"), asm.Return(),
	}
}
