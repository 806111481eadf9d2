package confine

import (
	"fmt"
	"os"
	"slices"

	seccomp "github.com/elastic/go-seccomp-bpf"
	"github.com/elastic/go-seccomp-bpf/arch"
	"golang.org/x/sys/unix"
)

// allowedCalls are allowed whatever their arguments. A name that an architecture lacks is left out there.
var allowedCalls = []string{
	// On what is open: files, interfaces, rings and sockets.
	"read", "readv", "pread64", "write", "writev", "pwrite64", "lseek", "close", "dup", "dup3", "fcntl", "flock",
	"fsync", "fdatasync", "ftruncate", "fstat", "getdents64", "io_uring_enter",
	"accept", "accept4", "getsockname", "getpeername", "getsockopt", "setsockopt", "shutdown",
	"sendto", "sendmsg", "sendmmsg", "recvfrom", "recvmsg", "recvmmsg",
	"epoll_create1", "epoll_ctl", "epoll_wait", "epoll_pwait", "epoll_pwait2", "eventfd2", "pipe2", "poll", "ppoll",
	// By file name, which Landlock decides about.
	"openat", "newfstatat", "fstatat", "statx", "readlinkat", "faccessat", "faccessat2", "getcwd",
	"unlinkat", "unlink", "rename", "renameat", "renameat2", "fchmod", "umask",
	// Memory, threads, signals and time, for Go and the C library.
	"munmap", "madvise", "mincore", "mremap", "brk", "futex", "rseq", "set_robust_list", "membarrier",
	"exit", "exit_group", "restart_syscall", "sched_yield", "sched_getaffinity",
	"rt_sigaction", "rt_sigprocmask", "rt_sigreturn", "sigaltstack",
	"nanosleep", "clock_nanosleep", "clock_gettime", "clock_getres", "gettimeofday", "time", "getrandom",
	"getpid", "gettid", "getuid", "geteuid", "getgid", "getegid", "getrusage", "times", "uname", "sysinfo", "capget", "getcpu",
}

// allowedIoctls only tell a terminal's width, and what a descriptor refers to.
var allowedIoctls = []uint64{unix.TUNGETIFF, unix.TUNGETSNDBUF, unix.SIOCGIFNAME, unix.SIOCGIFMTU, unix.SIOCGIFFLAGS, unix.TIOCOUTQ, unix.TIOCINQ,
	unix.TCGETS, unix.TIOCGWINSZ}

// allowedPrctls name threads and memory, or ask whether the process can be dumped.
var allowedPrctls = []uint64{unix.PR_SET_NAME, unix.PR_SET_VMA, unix.PR_GET_DUMPABLE}

// specAllow (Linux 4.17) keeps old kernels from turning speculation off with the filter, which would slow
// down ciphers.
const specAllow seccomp.FilterFlag = unix.SECCOMP_FILTER_FLAG_SPEC_ALLOW

// restrictCalls puts the filter in force for all threads. A refused call fails with EPERM, and the
// kernel's audit logs it. Killing the process would be worse: a library's next version may make another
// call.
func restrictCalls(p Plan) error {
	here, err := arch.GetInfo("")
	if err != nil {
		return fmt.Errorf("system calls: %w", err)
	}
	lacking := func(name string) bool { _, has := here.SyscallNames[name]; return !has }
	policy := seccomp.Policy{
		DefaultAction: seccomp.ActionErrno,
		Syscalls: []seccomp.SyscallGroup{
			{Action: seccomp.ActionAllow, Names: slices.DeleteFunc(slices.Clone(allowedCalls), lacking), NamesWithCondtions: conditions(p)},
			{Action: seccomp.ActionErrno | seccomp.Action(unix.ENOSYS), Names: []string{"clone3"}}, // its flags cannot be seen; the C library falls back to clone
		},
	}
	err = seccomp.LoadFilter(seccomp.Filter{Flag: seccomp.FilterFlagTSync | seccomp.FilterFlagLog | specAllow, Policy: policy})
	if err != nil {
		return fmt.Errorf("system calls: %w", err)
	}
	return nil
}

// FiltersCalls reports whether the kernel can filter system calls.
func FiltersCalls() bool { return seccomp.Supported() }

// conditions are the calls that are allowed only with certain arguments.
func conditions(p Plan) (all []seccomp.NameWithConditions) {
	allow := func(name string, argument uint32, is seccomp.Operation, value uint64) {
		all = append(all, seccomp.NameWithConditions{Name: name, Conditions: seccomp.ArgumentConditions{{Argument: argument, Operation: is, Value: value}}})
	}
	allow("mmap", 2, seccomp.BitsNotSet, unix.PROT_EXEC)
	allow("mprotect", 2, seccomp.BitsNotSet, unix.PROT_EXEC)
	allow("clone", 0, seccomp.BitsSet, unix.CLONE_THREAD) // threads, but no processes
	allow("kill", 0, seccomp.Equal, uint64(os.Getpid()))  // Go ends itself by signals
	allow("tgkill", 0, seccomp.Equal, uint64(os.Getpid()))
	allow("prlimit64", 2, seccomp.Equal, 0) // asking
	for _, request := range allowedIoctls {
		allow("ioctl", 1, seccomp.Equal, request)
	}
	all = append(all, seccomp.NameWithConditions{Name: "ioctl", Conditions: seccomp.ArgumentConditions{ // a persistent TAP gets its offloads reset at the end
		{Argument: 1, Operation: seccomp.Equal, Value: unix.TUNSETOFFLOAD}, {Argument: 2, Operation: seccomp.Equal, Value: 0}}})
	for _, option := range allowedPrctls {
		allow("prctl", 0, seccomp.Equal, option)
	}
	if len(p.Dial) > 0 {
		allow("socket", 0, seccomp.Equal, unix.AF_UNIX)
		allow("connect", 0, seccomp.GreaterOrEqual, 0) // any socket
	}
	return all
}
