package doctor

import (
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"tapsec/internal/confine"
	"tapsec/status"
	"tapsec/tap"
)

// limits are the kernel's switches with which distributions forbid user namespaces.
func limits() []Finding {
	var all []Finding
	for _, l := range []struct {
		name string
		good func(value int) bool
		set  int
	}{
		{"kernel.unprivileged_userns_clone", func(v int) bool { return v == 1 }, 1},
		{"kernel.apparmor_restrict_unprivileged_userns", func(v int) bool { return v == 0 }, 0},
		{"user.max_user_namespaces", func(v int) bool { return v > 0 }, 10000},
	} {
		value, ok := sysctl(l.name)
		if !ok {
			continue
		}
		f := Finding{Name: l.name, Met: l.good(value), Detail: fmt.Sprintf("It is %d.", value)}
		if !f.Met {
			f.Remedy = fmt.Sprintf("For use without root: sysctl %s=%d.", l.name, l.set)
		}
		all = append(all, f)
	}
	return all
}

const proc = "/proc"

// procfs is the finding that the interfaces' counters cannot be read; none if they can.
func procfs() []Finding {
	if _, err := os.Stat(proc + "/thread-self/net/dev"); err == nil {
		return nil
	}
	return []Finding{{Name: proc, Needed: true, Detail: "Nothing says there what interfaces lose.", Remedy: "mount -t proc proc /proc"}}
}

// sysctl reads one of the kernel's numbers; false if there is none.
func sysctl(name string) (int, bool) {
	text, err := os.ReadFile("/proc/sys/" + strings.ReplaceAll(name, ".", "/"))
	if err != nil {
		return 0, false
	}
	value, err := strconv.Atoi(strings.TrimSpace(string(text)))
	return value, err == nil
}

// release is the running kernel's release, for instance 6.18.3-generic and 6, 18.
func release() (name string, major, minor int) {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return "unknown", 0, 0
	}
	name = unix.ByteSliceToString(u.Release[:])
	fmt.Sscanf(name, "%d.%d", &major, &minor) // a name that does not parse counts as old
	return name, major, minor
}

// kernel says whether a TAP can be asked for its namespace (TUNGETDEVNETNS, Linux 5.2), in case
// it was moved.
func kernel() Finding {
	name, major, minor := release()
	f := Finding{Name: "kernel", Met: atLeast(major, minor, 5, 2), Detail: "Linux " + name + "."}
	if !f.Met {
		f.Remedy = "Leave netns out of the configuration, or take Linux 5.2 or newer."
	}
	return f
}

func atLeast(major, minor, wantMajor, wantMinor int) bool {
	return major > wantMajor || major == wantMajor && minor >= wantMinor
}

// ring says whether frames move by io_uring, which the probe has tried.
func ring(engine tap.Engine, why string) Finding {
	f := Finding{Name: "io_uring", Met: engine == tap.Ring, Detail: "It " + strings.TrimPrefix(why, "io_uring ") + "."}
	if !f.Met {
		f.Remedy = "None needed: the plain engine works, with about a third more processor time."
		if disabled, _ := sysctl("kernel.io_uring_disabled"); disabled != 0 {
			f.Detail = fmt.Sprintf("It is switched off (kernel.io_uring_disabled is %d).", disabled)
			f.Remedy = "For the ring engine: sysctl kernel.io_uring_disabled=0."
		}
	}
	return f
}

// attach says whether existing interfaces can be attached (attach: true, --in, --out).
func attach() Finding {
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return Finding{Name: "attach", Detail: fmt.Sprintf("No packet socket may be opened (%v).", err),
			Remedy: "To attach an existing interface: run as root, or with CAP_NET_RAW."}
	}
	unix.Close(fd)
	detail := "Existing interfaces can be attached, by a packet ring."
	if tap.CanSendDirect() == nil {
		detail += " Frames sent through them may bypass their queueing disciplines (--engine direct)."
	}
	return Finding{Name: "attach", Met: true, Detail: detail}
}

// redirect reports whether interfaces can be attached by AF_XDP, and what that costs.
func redirect() Finding {
	f := Finding{Name: "xdp", Met: true, Detail: "Interfaces can be attached by AF_XDP (--engine xdp). Their frames then bypass the machine's own stack, VLAN tags that a sender kept apart are lost, and unfinished checksums are recognised by the frame alone."}
	if err := tap.CanRedirect(); err != nil {
		f.Met, f.Detail = false, sentence(err.Error())
		f.Remedy = "Needed only for --engine xdp: run as root outside any user namespace. The packet ring does not need it."
	}
	return f
}

// confinement says what run can give up once it is at work. What a running program has left is
// in its document /status.
func confinement() Finding {
	abi, calls := confine.Landlock(), confine.FiltersCalls()
	files, made := "all that its user may open, for lack of Landlock", "all, for lack of seccomp"
	if abi > 0 {
		files = fmt.Sprintf("those it uses (Landlock ABI %d)", abi)
	}
	if calls {
		made = "those it makes (seccomp)"
	}
	f := Finding{Name: "confinement", Met: abi > 0 && calls, Detail: fmt.Sprintf(
		"At work the program keeps no capability. Files: %s. System calls: %s.", files, made)}
	if !f.Met {
		f.Remedy = "Needed only to be a lesser prize: Landlock is in Linux 5.13 and newer, and the boot option lsm= has to name it; containers may withhold either."
	}
	return f
}

// steering says whether --queues can choose by SPI. It loads such a program to find out.
func steering() Finding {
	f := Finding{Name: "steering", Met: true, Detail: "A program that chooses among --queues by SPI can be loaded."}
	if err := tap.CanSteer(); err != nil {
		f.Met, f.Detail = false, sentence(err.Error())
		f.Remedy = "Needed only for --queues: run as root outside any user namespace. Without it the kernel chooses by addresses and ports or SPI, and all SAs in UDP between two hosts share a queue."
	}
	return f
}

// sentence makes a sentence of an error or a reason.
func sentence(text string) string { return strings.ToUpper(text[:1]) + text[1:] + "." }

// bridges looks for what would drop frames forwarded behind the host's TAP, or strip their
// trailer: netfilter on bridges cuts frames to their IP length, and a port with the usual MTU
// has no room for a trailer.
func bridges() []Finding {
	const enough = 1500 + status.MaxTrailer
	var there, small []string
	isBridge := false
	for _, i := range forwarders() {
		there = append(there, i.Name)
		isBridge = isBridge || i.bridge
		if i.MTU < enough {
			small = append(small, i.Name)
		}
	}
	mtu := Finding{Name: "bridge MTU", Met: len(small) == 0, Detail: "No bridge and no veth in this namespace."}
	if len(there) > 0 {
		mtu.Detail = fmt.Sprintf("Bridges and veths: %s.", strings.Join(there, ", "))
	}
	if len(small) > 0 {
		mtu.Detail = fmt.Sprintf("Full-size frames with a trailer would be dropped by: %s.", strings.Join(small, ", "))
		mtu.Remedy = fmt.Sprintf("Where annotated frames are to pass: ip link set dev NAME mtu %d, for a bridge and all its ports.", enough)
	}
	return []Finding{bridgeFilter(isBridge), mtu}
}

func bridgeFilter(isBridge bool) Finding {
	f := Finding{Name: "bridge filter", Met: true, Detail: "Bridges leave trailers alone."}
	var on []string
	for _, name := range []string{"net.bridge.bridge-nf-call-iptables", "net.bridge.bridge-nf-call-ip6tables"} {
		if value, _ := sysctl(name); value != 0 && isBridge {
			on = append(on, name)
		}
	}
	if len(on) > 0 {
		f.Met = false
		f.Detail = "Netfilter cuts trailers off what a bridge forwards: " + strings.Join(on, " and ") + " set to 1."
		f.Remedy = "Where annotated frames are to pass a bridge: sysctl " + strings.Join(on, "=0 ") + "=0."
	}
	return f
}

// forwarder is a bridge or a veth.
type forwarder struct {
	net.Interface
	bridge bool
}

// forwarders asks each interface for its driver. One that does not tell counts as neither.
func forwarders() []forwarder {
	all, err := net.Interfaces()
	if err != nil {
		return nil
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil
	}
	defer unix.Close(fd)
	var found []forwarder
	for _, i := range all {
		info, err := unix.IoctlGetEthtoolDrvinfo(fd, i.Name)
		if err != nil {
			continue
		}
		switch unix.ByteSliceToString(info.Driver[:]) {
		case "bridge":
			found = append(found, forwarder{i, true})
		case "veth":
			found = append(found, forwarder{i, false})
		}
	}
	return found
}
