package tap

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"golang.org/x/sys/unix"
)

// Steering is how the kernel chooses one of several queues for a frame that it hands to the program. Its
// text is auto, spi or flow.
type Steering uint8

const (
	SteerAuto Steering = iota // SteerSPI if its program may be loaded, else SteerFlow
	SteerSPI                  // the outermost SPI; see Steer
	SteerFlow                 // the kernel's own hash of addresses and ports, or SPI; all SAs in UDP between two hosts are one flow
)

var steeringNames = []string{SteerAuto: "auto", SteerSPI: "spi", SteerFlow: "flow"}

func (s Steering) String() string { return nameOf(steeringNames, s) }

// MarshalText returns the steering's name.
func (s Steering) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText takes the steering's name.
func (s *Steering) UnmarshalText(text []byte) error { return named(s, steeringNames, text) }

// CanSteer tries to load a program that steers by SPI, and returns why it cannot.
func CanSteer() error {
	p, err := load(steerProgram())
	if err != nil {
		return err
	}
	return p.Close()
}

// Steer sets how the kernel chooses the queue of each frame that it hands to the program. It returns the
// choice, SteerSPI or SteerFlow, and with SteerAuto a sentence why.
//
// SteerSPI takes the queue whose number is the SPI's lower 16 bits modulo the number of queues, whatever
// else the frame holds, so that an SA's frames stay in order and its window on one core. The SPI is that of
// the outermost ESP or AH header, after VLAN tags, IPv4 options, up to eight IPv6 extension headers, and a
// UDP header to port 4500 (RFC 3948). A fragment goes by its addresses, other packets by addresses and
// ports; a frame that is neither IPv4 nor IPv6, or too short, goes to the first queue.
func (d *Device) Steer(by Steering) (now Steering, why string, err error) {
	switch {
	case len(d.queues) == 1:
		return SteerFlow, "there is one queue", nil
	case d.attached() && by == SteerFlow:
		return by, "", fmt.Errorf("steer %s by flow: it is attached, and its queues take frames by SPI: say auto or spi", d.name)
	case d.attached():
		return SteerSPI, "each queue's socket has a program that reads it", nil
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
	return SteerFlow, why, d.setSteering(-1) // an earlier user may have left a program
}

func (d *Device) steerBySPI() error {
	p, err := load(steerProgram())
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

// load loads a program into the kernel.
func load(program asm.Instructions) (*ebpf.Program, error) {
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{Name: "tapsec_steer", Type: ebpf.SocketFilter,
		License: "Apache-2.0", Instructions: program})
	switch {
	case err == nil:
		return p, nil
	case errors.Is(err, unix.EPERM):
		return nil, fmt.Errorf("loading a program that reads the SPI needs CAP_BPF outside any user namespace (%w)", unix.EPERM)
	}
	return nil, fmt.Errorf("load a program that reads the SPI: %w", err)
}
