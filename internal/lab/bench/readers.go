package bench

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"regexp"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"tapsec/keys"
	"tapsec/sa"
)

// reader is a peer that reads captures.
type reader struct {
	Peer
	args        []string
	full, empty *os.File
}

// readers are the peers that read a capture and find all of its frames good. The files end with closed.
func (r *Report) readers(text []byte, sas []*sa.SA) (all []*reader, closed func(), err error) {
	none, _, err := replayCapture(0)
	if err != nil {
		return nil, nil, err
	}
	full, err := inMemory(text)
	if err != nil {
		return nil, nil, err
	}
	empty, err := inMemory(none)
	if err != nil {
		return nil, nil, errors.Join(err, full.Close())
	}
	closed = func() { _, _ = full.Close(), empty.Close() }
	table, err := tsharkTable(sas)
	if err != nil {
		closed()
		return nil, nil, err
	}
	for _, kind := range []struct {
		name, good string
		args       []string
	}{
		{Tcpdump, `ESP\(spi=`, []string{"-n", "-r", "-"}},
		{Tshark, `\t(1|True)\n`, append([]string{"-n", "-r", "-", "-T", "fields", "-e", "ip.src", "-e", "udp.dstport", "-e", "esp.icv_good"}, table...)},
	} {
		p, ok := r.peer(kind.name)
		if !ok {
			continue
		}
		one := &reader{p, kind.args, full, empty}
		if err := one.judge(kind.good); err != nil {
			r.without(p.Name, err)
			continue
		}
		all = append(all, one)
	}
	return all, closed, nil
}

// tsharkTable has tshark decrypt what these SAs sealed, and check it. The keys are this run's, and nobody else's.
func tsharkTable(sas []*sa.SA) (args []string, err error) {
	args = []string{"-o", "esp.enable_encryption_decode:TRUE", "-o", "esp.enable_authentication_check:TRUE"}
	var rows bytes.Buffer
	if err := keys.WriteESPSA(&rows, sas); err != nil {
		return nil, err
	}
	for row := range strings.Lines(rows.String()) {
		if !strings.HasPrefix(row, "#") {
			args = append(args, "-o", "uat:esp_sa:"+strings.TrimSpace(row))
		}
	}
	return args, nil
}

// judge has the peer read the capture once, and say of each frame that it is good.
func (r *reader) judge(good string) error {
	var said bytes.Buffer
	if _, err := r.read(r.full, &said); err != nil {
		return err
	}
	if n := len(regexp.MustCompile(good).FindAll(said.Bytes(), -1)); n != replayed {
		return fmt.Errorf("expected %d lines with %s, found %d", replayed, good, n)
	}
	return nil
}

// round reads the capture, and one without frames, to learn what the program's start takes of the processor. By the
// clock no start takes less, and on a busy machine it may take longer than the whole of another run.
func (r *reader) round() (took, error) {
	start, err := r.read(r.empty, nil)
	if err != nil {
		return took{}, err
	}
	all, err := r.read(r.full, nil)
	return took{all.cpu - start.cpu, all.wall - start.cpu}, err
}

// read runs the program. It is nobody in a namespace of users, since tcpdump gives up being root and cannot where the
// rig has no other user.
func (r *reader) read(file *os.File, out *bytes.Buffer) (took, error) {
	if _, err := file.Seek(0, 0); err != nil {
		return took{}, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	cmd := bound(ctx, r.Program, r.args...)
	cmd.Stdin, cmd.Env = file, append(os.Environ(), "WIRESHARK_CONFIG_DIR=/nonexistent")
	if out != nil {
		cmd.Stdout = out
	}
	const nobody = 65534
	cmd.SysProcAttr.Cloneflags = unix.CLONE_NEWUSER
	cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: nobody, HostID: os.Geteuid(), Size: 1}}
	cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: nobody, HostID: os.Getegid(), Size: 1}}
	var said strings.Builder
	cmd.Stderr = &said
	begin := wallTime()
	if err := cmd.Run(); err != nil {
		return took{}, fmt.Errorf("%s: %w: %.200s", r.Program, err, said.String())
	}
	return took{spent(cmd), wallTime() - begin}, nil
}

// inMemory is a file that ends with this process.
func inMemory(text []byte) (*os.File, error) {
	fd, err := unix.MemfdCreate("capture", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("a file in memory: %w", err)
	}
	f := os.NewFile(uintptr(fd), "capture")
	if _, err := f.Write(text); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}
