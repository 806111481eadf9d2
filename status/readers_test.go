package status_test

import (
	"bytes"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"tapsec/internal/lab/rig"
	"tapsec/status"
)

// The readers for others have the names that this package has.
func TestReadersNames(t *testing.T) {
	var c, python strings.Builder
	python.WriteString("REASONS = {\n")
	c.WriteString("enum tapsec_reason {\n")
	for _, r := range status.Reasons() {
		name := strings.ToUpper(strings.ReplaceAll(r.String(), "-", "_"))
		fmt.Fprintf(&c, "\tTAPSEC_REASON_%s = %d, /* %s */\n", name, r, r.Sentence())
		fmt.Fprintf(&python, "    %d: %q,\n", r, r.String())
	}
	c.WriteString("};\nenum tapsec_status {\n")
	python.WriteString("}\nSTATUS = {\n")
	for code := range status.Code(status.NumCodes) {
		fmt.Fprintf(&c, "\tTAPSEC_%s = %d,\n", code, code)
		fmt.Fprintf(&python, "    %d: %q,\n", code, code.String())
	}
	c.WriteString("};\n")
	python.WriteString("}\n")
	names(t, "../docs/trailer/tapsec_trailer.h", "/* BEGIN NAMES */\n", "/* END NAMES */\n", c.String())
	names(t, "../docs/trailer/tapsec_trailer.py", "# BEGIN NAMES\n", "# END NAMES\n", python.String())
}

// names holds what stands between two lines of a file, or writes it.
func names(t *testing.T, path, begin, end, text string) {
	t.Helper()
	old, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	between := regexp.MustCompile("(?s)" + regexp.QuoteMeta(begin) + ".*" + regexp.QuoteMeta(end))
	want := between.ReplaceAllLiteralString(string(old), begin+text+end)
	if flag.Lookup("update").Value.String() == "true" {
		err = os.WriteFile(path, []byte(want), 0o644)
	} else if want != string(old) {
		err = fmt.Errorf("%s is out of date: run go test ./status -update", path)
	}
	if err != nil {
		t.Error(err)
	}
}

// The readers in C and Python read every golden frame, frames with any trailer, and damaged
// ones as this package does.
func TestReaders(t *testing.T) {
	frames := framesToRead(t)
	var in, want strings.Builder
	for _, f := range frames {
		fmt.Fprintln(&in, hex.EncodeToString(f))
		fmt.Fprintln(&want, read(f))
	}
	for name, command := range map[string]*exec.Cmd{"C": inC(t), "Python": inPython(t)} {
		command.Stdin = strings.NewReader(in.String())
		var said bytes.Buffer
		command.Stderr = &said
		out, err := command.Output()
		if err != nil {
			t.Errorf("%s: %v: %s", name, err, said.String())
			continue
		}
		got, wanted := strings.Split(string(out), "\n"), strings.Split(want.String(), "\n")
		for i := range frames {
			if i >= len(got) || got[i] != wanted[i] {
				t.Fatalf("%s reads frame %d as\n%s, want\n%s", name, i, got[min(i, len(got)-1)], wanted[i])
			}
		}
	}
}

// read is what this package reads, in one line.
func read(frame []byte) string {
	body, t, err := status.Split(frame)
	switch {
	case errors.Is(err, status.ErrNoTrailer):
		return "none"
	case err != nil:
		return "bad"
	}
	line := fmt.Sprintf("%d %08x %d %d %d %d %d %d %d %d %d %d", len(body), uint32(t.Word), t.Reason, t.Form, t.Removed, t.N, t.Omitted,
		t.Queue, t.WireLen, t.Ordinal, t.Received, bit(t.Word.Verified(1))+2*bit(t.Word.Verified(2)))
	for _, r := range t.Records[:t.N] {
		line += fmt.Sprintf(" | %d %d %08x %d %d %d %d %d %d %d %d %d %d %d %d %d %d", r.Portion, r.Protocol, r.SPI, r.Number, r.Handle,
			r.State, r.Code, r.Reason, r.IP, r.IPsec, r.Payload, r.PayloadLen, r.IVLen, r.PadLen, r.ICVLen, r.NextHeader, bit(r.DeleteSA))
	}
	return line
}

func bit(b bool) int {
	if b {
		return 1
	}
	return 0
}

func framesToRead(t *testing.T) (frames [][]byte) {
	files, err := filepath.Glob("../docs/trailer/*.hex")
	if err != nil || len(files) == 0 {
		t.Fatal("no golden frames: ", err)
	}
	for _, f := range files {
		frames = append(frames, golden(f))
	}
	random := rand.New(rand.NewPCG(1, 2))
	for range 1000 {
		trailer := status.Trailer{Word: status.Word(random.Uint32()), Reason: status.Reason(random.Uint32()), Form: status.Form(random.IntN(2)),
			Queue: uint16(random.Uint32()), Ordinal: random.Uint64(), Received: int64(random.Uint64()), WireLen: uint32(random.IntN(120))}
		for range random.IntN(5) {
			trailer.Add(status.Record{Portion: status.Portion(random.IntN(3)), Protocol: 50 + uint8(random.IntN(2)), SPI: random.Uint32(),
				Number: random.Uint64(), Handle: random.Uint32(), State: status.State(random.IntN(6)), Code: status.Code(random.IntN(9)),
				Reason: status.Reason(random.Uint32()), IP: uint16(random.Uint32()), IPsec: uint16(random.Uint32()), Payload: uint16(random.Uint32()),
				PayloadLen: uint16(random.Uint32()), IVLen: uint8(random.Uint32()), PadLen: uint8(random.Uint32()), ICVLen: uint8(random.Uint32()),
				NextHeader: uint8(random.Uint32()), DeleteSA: random.IntN(2) == 1})
		}
		frame := status.Annotate(bytes.Repeat([]byte{7}, random.IntN(120)), &trailer)
		frames = append(frames, frame)
		damaged := bytes.Clone(frame)
		damaged[random.IntN(len(damaged))] ^= 1 << random.IntN(8)
		frames = append(frames, damaged, frame[:random.IntN(len(frame))], frame[random.IntN(len(frame)):])
	}
	return frames
}

const mainInC = `
#include <stdio.h>
#include "tapsec_trailer.h"
int main(void) {
	static char line[1 << 17];
	static uint8_t frame[1 << 16];
	while (fgets(line, sizeof line, stdin)) {
		size_t n = 0;
		unsigned b;
		for (; sscanf(line + 2 * n, "%2x", &b) == 1; n++) frame[n] = (uint8_t)b;
		struct tapsec_trailer t;
		long body = tapsec_split(frame, n, &t);
		if (body < 0) { puts(body == -1 ? "none" : "bad"); continue; }
		printf("%ld %08x %d %d %d %d %d %d %u %llu %lld %d", body, t.word, t.reason, t.form, t.removed, t.records, t.omitted, t.queue,
			t.wire_len, (unsigned long long)t.ordinal, (long long)t.received, tapsec_verified(t.word, 1) + 2 * tapsec_verified(t.word, 2));
		for (int i = 0; i < t.records; i++) {
			struct tapsec_record *r = &t.record[i];
			printf(" | %d %d %08x %llu %u %d %d %d %d %d %d %d %d %d %d %d %d", r->portion, r->protocol, r->spi, (unsigned long long)r->number,
				r->handle, r->state, r->status, r->reason, r->ip, r->ipsec, r->payload, r->payload_len, r->iv_len, r->pad_len, r->icv_len,
				r->next_header, r->delete_sa);
		}
		puts("");
	}
}
`

func inC(t *testing.T) *exec.Cmd {
	t.Helper()
	cc, err := exec.LookPath("cc")
	if err != nil {
		rig.Missing(t, "a C compiler is missing: apt-get install gcc")
	}
	dir := t.TempDir()
	source, program := filepath.Join(dir, "main.c"), filepath.Join(dir, "main")
	if err := os.WriteFile(source, []byte(mainInC), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(cc, "-std=c99", "-Wall", "-Wextra", "-Wno-unused-function", "-Werror", "-I", "../docs/trailer", "-o", program, source).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return exec.Command(program)
}

const mainInPython = `
import sys
from tapsec_trailer import *
for line in sys.stdin:
    try:
        body, t = split(bytes.fromhex(line.strip()))
    except NoTrailer:
        print("none")
        continue
    except BadTrailer:
        print("bad")
        continue
    print(len(body), "%08x" % t.word, t.reason, t.form, t.removed, len(t.records), t.omitted, t.queue, t.wire_len, t.ordinal, t.received,
          t.verified(1) + 2 * t.verified(2), end="")
    for r in t.records:
        print(" |", r.portion, r.protocol, "%08x" % r.spi, r.number, r.handle, r.state, r.status, r.reason, r.ip, r.ipsec, r.payload,
              r.payload_len, r.iv_len, r.pad_len, r.icv_len, r.next_header, int(r.delete_sa), end="")
    print()
`

func inPython(t *testing.T) *exec.Cmd {
	t.Helper()
	python, err := exec.LookPath("python3")
	if err != nil {
		rig.Missing(t, "python3 is missing: apt-get install python3")
	}
	cmd := exec.Command(python, "-B", "-c", mainInPython)
	cmd.Env = append(os.Environ(), "PYTHONPATH=../docs/trailer")
	return cmd
}
