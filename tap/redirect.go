package tap

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	xdp "github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// xdpRedirect is the program that takes an interface's frames, its attachment, and the map in which it
// finds the sockets. The interface keeps it for as long as the process has a descriptor of it.
type xdpRedirect struct {
	program *ebpf.Program
	sockets *ebpf.Map
	link    xdp.Link
	native  bool // the driver runs it
}

// CanSendDirect says why frames cannot leave attached interfaces past their queueing disciplines (engine
// direct); nil if they can.
func CanSendDirect() error {
	fd, err := unix.Socket(unix.AF_XDP, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return explainXDP("", err)
	}
	return unix.Close(fd)
}

// CanRedirect says why a program that takes an interface's frames (engine xdp) cannot be loaded, or an
// AF_XDP socket not opened; nil if both can. It tries both.
func CanRedirect() error {
	if err := CanSendDirect(); err != nil {
		return err
	}
	r, err := loadRedirect(1)
	return errors.Join(explainXDP("", err), r.close())
}

// redirectTo shares the frames of an interface's first receive queue among sockets: in the driver if it has
// such a hook, else in front of the network stack.
func redirectTo(sockets []int, index int) (*xdpRedirect, error) {
	r, err := loadRedirect(len(sockets))
	for queue, socket := range sockets {
		if err == nil {
			err = r.sockets.Put(uint32(queue), uint32(socket))
		}
	}
	if err != nil {
		return r, err
	}
	r.native = true
	if r.link, err = xdp.AttachXDP(xdp.XDPOptions{Program: r.program, Interface: index, Flags: xdp.XDPDriverMode}); err == nil {
		return r, nil
	}
	var generic error
	r.native = false
	if r.link, generic = xdp.AttachXDP(xdp.XDPOptions{Program: r.program, Interface: index, Flags: xdp.XDPGenericMode}); generic == nil {
		return r, nil
	}
	return r, fmt.Errorf("attach a program: in the driver %w, in front of the stack %w", err, generic)
}

// loadRedirect loads the program, with a map for so many sockets.
func loadRedirect(queues int) (r *xdpRedirect, err error) {
	r = &xdpRedirect{}
	if r.sockets, err = ebpf.NewMap(&ebpf.MapSpec{Name: "tapsec_xdp", Type: ebpf.XSKMap, KeySize: 4, ValueSize: 4, MaxEntries: uint32(queues)}); err != nil {
		return r, err
	}
	if r.program, err = ebpf.NewProgram(&ebpf.ProgramSpec{Name: "tapsec_xdp", Type: ebpf.XDP, License: "Apache-2.0",
		Instructions: redirectProgram(r.sockets.FD(), queues)}); err != nil {
		return r, err
	}
	return r, nil
}

// redirectProgram returns bpf_redirect_map(sockets, queue, XDP_PASS), where queue is chosen as by the programs
// of packet sockets. A frame of a receive queue that has no sockets goes on to the network stack.
func redirectProgram(sockets, queues int) asm.Instructions {
	const queueIndex, pass = 16, 2 // offset of rx_queue_index in struct xdp_md, and enum xdp_action
	p := program{from: asm.FnXdpLoadBytes}
	p.add(asm.LoadMem(asm.R2, asm.R1, queueIndex, asm.Word), asm.JNE.Imm(asm.R2, 0, "pass"))
	if queues > 1 {
		p.choose(false)
		p.add(asm.And.Imm(asm.R0, 0xffff), asm.Mod.Imm(asm.R0, int32(queues)), asm.Mov.Reg(asm.R2, asm.R0))
	}
	p.add(asm.LoadMapPtr(asm.R1, sockets), asm.Mov.Imm(asm.R3, pass), asm.FnRedirectMap.Call(), asm.Return())
	p.mark("pass")
	p.add(asm.Mov.Imm(asm.R0, pass), asm.Return())
	return p.code
}

// close takes the program off the interface. A nil xdpRedirect holds nothing.
func (r *xdpRedirect) close() (err error) {
	if r == nil {
		return nil
	}
	if r.link != nil {
		err = r.link.Close()
	}
	if r.program != nil {
		err = errors.Join(err, r.program.Close())
	}
	if r.sockets != nil {
		err = errors.Join(err, r.sockets.Close())
	}
	return err
}

// explainXDP turns the kernel's answer into what to do about it.
func explainXDP(name string, err error) error {
	if err == nil {
		return nil
	}
	if name += ": "; name == ": " {
		name = ""
	}
	return explained{fmt.Errorf("%s%w", name, adviseXDP(err))}
}

func adviseXDP(err error) error {
	switch {
	case errors.Is(err, unix.EPERM):
		return fmt.Errorf("AF_XDP needs CAP_NET_RAW, and to receive by it CAP_NET_ADMIN and CAP_BPF outside any user namespace (%w)", unix.EPERM)
	case errors.Is(err, unix.EAFNOSUPPORT):
		return fmt.Errorf("the kernel has no AF_XDP, CONFIG_XDP_SOCKETS: choose ring (%w)", unix.EAFNOSUPPORT)
	case errors.Is(err, unix.EBUSY), errors.Is(err, unix.EEXIST):
		return fmt.Errorf("another program has AF_XDP there, or its frames by XDP: stop that one, or choose ring (%w)", err)
	case errors.Is(err, unix.ENOBUFS), errors.Is(err, unix.ENOMEM):
		return fmt.Errorf("no memory for AF_XDP: allow more locked memory (ulimit -l), or choose ring (%w)", err)
	case errors.Is(err, unix.EMFILE), errors.Is(err, unix.ENFILE):
		return fmt.Errorf("AF_XDP: %w: %s", err, advice(err))
	}
	return fmt.Errorf("AF_XDP: %w: choose ring", err)
}
