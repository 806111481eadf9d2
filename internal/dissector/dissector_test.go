package dissector_test

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"tapsec/capture"
	"tapsec/internal/dissector"
	"tapsec/internal/lab/conformance"
	"tapsec/internal/lab/rig"
	"tapsec/pipeline"
	"tapsec/status"
)

// tshark runs tshark with the dissector on a capture.
func tshark(t *testing.T, file string, args ...string) []string {
	t.Helper()
	path, err := exec.LookPath("tshark")
	if err != nil {
		rig.Missing(t, "tshark is missing: apt-get install tshark")
	}
	lua := filepath.Join(t.TempDir(), "tapsec.lua")
	if err := os.WriteFile(lua, []byte(dissector.Lua()), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(path, append([]string{"-X", "lua_script:" + lua, "-nr", file}, args...)...)
	var said bytes.Buffer
	cmd.Stderr = &said
	out, err := cmd.Output()
	if err != nil || strings.Contains(said.String(), "Lua") {
		t.Fatalf("%v: %s", err, said.String())
	}
	return strings.Split(strings.TrimSuffix(string(out), "\n"), "\n")
}

// delivered writes every frame of the contract's table, as a NIC delivers it, into a capture.
func delivered(t *testing.T, form status.Form) (file string, trailers []status.Trailer) {
	t.Helper()
	var out bytes.Buffer
	w, err := capture.NewWriter(&out)
	if err == nil {
		_, err = w.Interface("host0", "")
	}
	for _, l := range conformance.Contract() {
		sad := pipeline.NewSAD(l.Profile, 1)
		if err := l.Arrange(sad); err != nil {
			t.Fatal(err)
		}
		p := pipeline.New(sad, pipeline.Options{Form: form, Queue: 3})
		p.At(time.Unix(1800000000, 123456789))
		for _, c := range l.Cases {
			frame := p.Process(bytes.Clone(c.Frame))
			_, trailer, splitErr := status.Split(frame)
			if splitErr != nil {
				t.Fatal(splitErr)
			}
			trailers = append(trailers, trailer)
			if err == nil {
				err = w.Frame(0, time.Unix(1800000000, 0), frame, "")
			}
		}
	}
	file = filepath.Join(t.TempDir(), "host0.pcapng")
	if err == nil {
		err = os.WriteFile(file, out.Bytes(), 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	return file, trailers
}

// fields are what is compared, by the name that Wireshark has for it.
var fields = []string{"tapsec.word", "tapsec.crypto_done", "tapsec.next_crypto_done", "tapsec.sa_delete_req", "tapsec.status",
	"tapsec.reason", "tapsec.reason.name", "tapsec.sentence", "tapsec.form", "tapsec.removed", "tapsec.records", "tapsec.queue",
	"tapsec.wire_length", "tapsec.ordinal", "tapsec.portion", "tapsec.protocol", "tapsec.spi", "tapsec.seq", "tapsec.handle",
	"tapsec.state", "tapsec.record.status", "tapsec.record.reason", "tapsec.ip_offset", "tapsec.ipsec_offset",
	"tapsec.payload_offset", "tapsec.payload_length", "tapsec.iv_length", "tapsec.pad_length", "tapsec.icv_length",
	"tapsec.next_header", "tapsec.record.sa_delete_req", "eth.fcs", "f5ethtrailer", "tapsec.bad"}

// want is a line of these fields as our own reader has them.
func want(t *status.Trailer) string {
	line := []string{fmt.Sprintf("0x%08x", uint32(t.Word)), bit(t.Word.Done()), bit(t.Word.Next()), bit(t.Word.DeleteSA()),
		fmt.Sprint(uint16(t.Word.Code())), fmt.Sprint(uint16(t.Reason)), t.Reason.String(), t.Reason.Sentence(),
		fmt.Sprint(uint8(t.Form)), fmt.Sprint(t.Removed), fmt.Sprint(t.N), fmt.Sprint(t.Queue), fmt.Sprint(t.WireLen), fmt.Sprint(t.Ordinal)}
	each := func(f func(r *status.Record) any) {
		var all []string
		for i := range t.Records[:t.N] {
			all = append(all, fmt.Sprint(f(&t.Records[i])))
		}
		line = append(line, strings.Join(all, ","))
	}
	each(func(r *status.Record) any { return uint8(r.Portion) })
	each(func(r *status.Record) any { return r.Protocol })
	each(func(r *status.Record) any { return fmt.Sprintf("0x%08x", r.SPI) })
	each(func(r *status.Record) any { return r.Number })
	each(func(r *status.Record) any { return r.Handle })
	each(func(r *status.Record) any { return uint8(r.State) })
	each(func(r *status.Record) any { return uint16(r.Code) })
	each(func(r *status.Record) any { return uint16(r.Reason) })
	each(func(r *status.Record) any { return r.IP })
	each(func(r *status.Record) any { return r.IPsec })
	each(func(r *status.Record) any { return r.Payload })
	each(func(r *status.Record) any { return r.PayloadLen })
	each(func(r *status.Record) any { return r.IVLen })
	each(func(r *status.Record) any { return r.PadLen })
	each(func(r *status.Record) any { return r.ICVLen })
	each(func(r *status.Record) any { return r.NextHeader })
	each(func(r *status.Record) any { return bit(r.DeleteSA) })
	return strings.Join(append(line, "", "", ""), "\t")
}

func bit(b bool) string {
	if b {
		return "1"
	}
	return "0"
}

// Wireshark reads of each frame of the contract's table what our own reader does, in both
// forms, and sees no checksum and no other's trailer there.
func TestEveryRow(t *testing.T) {
	args := []string{"-T", "fields", "-E", "occurrence=a", "-E", "aggregator=,"}
	for _, f := range fields {
		args = append(args, "-e", f)
	}
	for _, form := range []status.Form{status.InPlace, status.Decap} {
		file, trailers := delivered(t, form)
		lines := tshark(t, file, args...)
		if len(lines) != len(trailers) {
			t.Fatalf("%s: %d lines for %d frames", form, len(lines), len(trailers))
		}
		for i := range trailers {
			got, want := strings.Split(strings.NewReplacer("True", "1", "False", "0").Replace(lines[i]), "\t"), strings.Split(want(&trailers[i]), "\t")
			for n := range want {
				if n >= len(got) || got[n] != want[n] {
					t.Errorf("%s, frame %d: %s is %q, want %q", form, i+1, fields[n], got[n], want[n])
				}
			}
		}
	}
}

// What a NIC has opened is dissected, in either form, and one can filter by the verdict.
func TestOpened(t *testing.T) {
	for _, form := range []status.Form{status.InPlace, status.Decap} {
		file, trailers := delivered(t, form)
		good := 0
		for i := range trailers {
			if trailers[i].Word.Verified(2) {
				good++
			}
		}
		seen := tshark(t, file, "-Y", `tapsec.next_crypto_done == 1 && tapsec.status == 0 && udp.dstport == 9`, "-T", "fields", "-e", "tapsec.verdict")
		if good == 0 || len(seen) != good || seen[0] != "good, both" {
			t.Errorf("%s: %d frames with both portions good, of which tshark sees the datagrams of %d: %q", form, good, len(seen), seen)
		}
		failed := tshark(t, file, "-Y", `tapsec.failed`, "-T", "fields", "-e", "tapsec.reason.name")
		count := 0
		for i := range trailers {
			if trailers[i].Word.Code() != status.Success {
				count++
			}
		}
		if len(failed) != count {
			t.Errorf("%s: tshark marks %d frames, %d have failed", form, len(failed), count)
		}
	}
}
