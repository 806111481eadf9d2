package tshark

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"tapsec/internal/lab/rig"
	"tapsec/test/interop"
	"tapsec/test/program"
)

// samples are captures that this repository has for other tests.
func samples(t *testing.T, m *matrix) {
	const cli, configs = "../../../internal/cli/testdata/", "../../../configs/"
	for _, s := range []struct{ keys, file string }{
		{configs + "layers.yaml", configs + "layers.pcapng"},
		{cli + "natt-server.xfrm", cli + "natt-server.pcap"},
		{cli + "plain.esp_sa", cli + "plain.pcap"},
		{"../linux/captures/twins/twins.xfrm", "../linux/captures/twins/twins.pcap"},
	} {
		name := filepath.Base(s.file)
		m.judge(t, s.keys, s.file, interop.BothOpen, func(int) (what, title string) { return "this repository: " + name, "" })
	}
}

// containers are recordings of a kernel in other containers: files of other programs and
// byte orders, with other link types, cut short, and taken live.
func containers(t *testing.T, m *matrix) {
	for _, program := range []string{"editcap", "mergecap", "dumpcap"} {
		interop.Require(t, program)
	}
	for _, name := range []string{"tunnel", "encap"} {
		const folder = "../linux/captures/"
		keys, file := folder+name+".xfrm", folder+name+".pcap"
		frames := interop.Frames(t, file)
		all := contained(t, file, frames)
		for _, how := range slices.Sorted(maps.Keys(all)) {
			for _, f := range all[how] {
				m.judge(t, keys, f, interop.BothOpen, func(int) (what, title string) { return "Linux 6.1 in " + how, name })
			}
		}
	}
}

// contained puts frames into files, by what is unusual of them.
func contained(t *testing.T, file string, frames [][]byte) map[string][]string {
	t.Helper()
	dir := t.TempDir()
	all := map[string][]string{}
	made := func(how, name string, command ...string) string {
		path := filepath.Join(dir, name)
		for i := range command {
			command[i] = strings.ReplaceAll(command[i], "OUT", path)
		}
		if out, err := exec.Command(command[0], command[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%v: %v\n%s", command, err, out)
		}
		all[how] = append(all[how], path)
		return path
	}
	wrote := func(how, name string, content []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		all[how] = append(all[how], path)
		return path
	}
	be, le := binary.BigEndian, binary.LittleEndian
	nano := made("a pcap of nanoseconds", "nano", "editcap", "-F", "nsecpcap", file, "OUT")
	made("a modified pcap", "modified", "editcap", "-F", "modpcap", file, "OUT")
	wrote("a big-endian pcap", "big", oldPcap(be, 0xa1b2c3d4, 1, nil, frames))
	wrote("a big-endian pcap of nanoseconds", "bignano", oldPcap(be, 0xa1b23c4d, 1, nil, frames))
	wrote("a big-endian pcapng", "bigng", newPcap(be, frames))
	cooked := wrote("a pcap of Linux's any", "any", oldPcap(le, 0xa1b2c3d4, 113, cookedHeader, frames))
	loop := wrote("a pcap of BSD's loopback", "loop", oldPcap(be, 0xa1b2c3d4, 108, loopHeader, frames))
	raw := made("a pcap of IP alone", "raw", "editcap", "-C", "14", "-T", "rawip", file, "OUT")
	made("a pcapng of five interfaces and four link types", "many", "mergecap", "-a", "-I", "all", "-w", "OUT", file, raw, cooked, nano, loop)
	for _, size := range []string{"34", "60", "100", "300"} {
		made("a pcap cut to 34, 60, 100 and 300 bytes", "cut"+size, "editcap", "-s", size, file, "OUT")
	}
	all["dumpcap's ring of files"] = ring(t, dir, frames)
	return all
}

// oldPcap is a pcap in a byte order, with the magic of its times' unit. Where there is a
// header, it takes the place of Ethernet's.
func oldPcap(order binary.ByteOrder, magic, link uint32, header func(etherType []byte) []byte, frames [][]byte) []byte {
	var b bytes.Buffer
	_ = binary.Write(&b, order, []uint32{magic, 0, 0, 0, 262144, link})
	order.PutUint16(b.Bytes()[4:], 2)
	order.PutUint16(b.Bytes()[6:], 4)
	for i, f := range frames {
		if header != nil {
			f = slices.Concat(header(f[12:14]), f[14:])
		}
		_ = binary.Write(&b, order, []uint32{uint32(1_700_000_000 + i), 7, uint32(len(f)), uint32(len(f))})
		b.Write(f)
	}
	return b.Bytes()
}

// cookedHeader is LINKTYPE_LINUX_SLL's.
func cookedHeader(etherType []byte) []byte {
	return append([]byte{0, 0, 0, 1, 0, 6, 2, 0x74, 0x73, 0, 0, 1, 0, 0}, etherType...)
}

// loopHeader is LINKTYPE_LOOP's: an address family in network order, IPv6's as OpenBSD has it.
func loopHeader(etherType []byte) []byte {
	if etherType[0] == 0x86 {
		return []byte{0, 0, 0, 24}
	}
	return []byte{0, 0, 0, 2}
}

// newPcap is a pcapng in a byte order, of enhanced packet blocks.
func newPcap(order binary.ByteOrder, frames [][]byte) []byte {
	var b bytes.Buffer
	block := func(kind uint32, words []uint32, data []byte) {
		padded := append(bytes.Clone(data), make([]byte, -len(data)&3)...)
		size := uint32(12 + 4*len(words) + len(padded))
		_ = binary.Write(&b, order, []uint32{kind, size})
		_ = binary.Write(&b, order, words)
		b.Write(padded)
		_ = binary.Write(&b, order, size)
	}
	halves := func(first, second uint16) uint32 { // as they lie in the file
		both := make([]byte, 4)
		order.PutUint16(both, first)
		order.PutUint16(both[2:], second)
		return order.Uint32(both)
	}
	block(0x0a0d0d0a, []uint32{0x1a2b3c4d, halves(1, 0), 0xffffffff, 0xffffffff}, nil)
	block(1, []uint32{halves(1, 0), 262144}, nil)
	for i, f := range frames {
		block(6, []uint32{0, 0x60000, uint32(i), uint32(len(f)), uint32(len(f))}, f)
	}
	return b.Bytes()
}

// ring has dumpcap take the frames from an interface into a ring of small files.
func ring(t *testing.T, dir string, frames [][]byte) []string {
	t.Helper()
	rig.Require(t)
	const name = "ring0"
	remove, err := rig.QuietVeths(9000, name)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := remove(); err != nil {
			t.Error(err)
		}
	}()
	dumpcap := program.Launch(t, nil, exec.Command("dumpcap", "-q", "-i", rig.FarEnd(name), "-s", "0", "-c", fmt.Sprint(len(frames)),
		"-b", "filesize:16", "-b", "files:100", "-w", filepath.Join(dir, "ring.pcapng")))
	dumpcap.Await("File: ", 1)
	socket, err := rig.OpenSocket(name)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range frames {
		err = errors.Join(err, socket.Send(f))
	}
	if err := errors.Join(err, socket.Close()); err != nil {
		t.Fatal(err)
	}
	dumpcap.Join()
	files, err := filepath.Glob(filepath.Join(dir, "ring_*.pcapng"))
	if err != nil || len(files) < 2 {
		t.Fatalf("dumpcap wrote %v: %v\n%s", files, err, dumpcap.Text())
	}
	slices.Sort(files)
	return files
}
