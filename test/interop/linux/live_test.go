package linux

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"tapsec/internal/lab/rig"
	"tapsec/internal/netns"
	"tapsec/sa"
	"tapsec/status"
	"tapsec/test/interop"
	"tapsec/test/program"
)

// inOrder are record.py's captures, in its order.
var inOrder = []string{"esp-aead", "esp-composed", "ah", "tunnel", "nested", "ah-esp", "tunnel-in-tunnel", "encap", "esn", "tfc",
	"headers", "vlan", "fragments", "atomic"}

// TestKernelSeals has a kernel on the wire of a running NIC. Each time that the
// guest has new SAs the NIC gets them from the guest's own `ip xfrm state`, with a
// SIGHUP. Every frame that left the guest must come to the host with the word,
// numbers and records that follow from its flow, and opened to what was sent.
func TestKernelSeals(t *testing.T) {
	interop.Require(t, "linux.uml", "ip")
	rig.Require(t)
	out := t.TempDir()
	for _, name := range []string{"wire0", "host0"} {
		if err := errors.Join(netns.AddTAP(name, false), netns.SetMTU(name, mtu), netns.Up(name)); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		if err := errors.Join(netns.Delete("wire0"), netns.Delete("host0")); err != nil {
			t.Error(err)
		}
	})
	host, err := rig.OpenSocket("host0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { host.Close() })

	uml := boot(t, "record.py", out, wired("wire0"))
	var nic *program.Process
	m := newMatrix()
	for i, name := range inOrder {
		uml.Await("keyed "+name, 1)
		keys := filepath.Join(out, "keys")
		text, err := os.ReadFile(filepath.Join(out, name+".xfrm"))
		if err == nil {
			err = os.WriteFile(keys, text, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
		if nic == nil {
			nic = startNIC(t, keys)
		} else {
			_ = nic.Process.Signal(unix.SIGHUP)
			nic.Await("msg=reloaded", i)
		}
		fmt.Fprintln(uml.console, "go")
		uml.Await("sent "+name, 1)
		if !t.Run(name, func(t *testing.T) { m.live(t, filepath.Join(out, name), host) }) {
			break // what is late would be taken for the next ones'
		}
	}
	if !t.Failed() {
		uml.Await("recorded", 1)
	}
	uml.Join()
	nic.Stop()
	kernel, err := os.ReadFile(filepath.Join(out, "kernel.txt"))
	if err != nil {
		t.Fatal(err)
	}
	m.version = strings.Fields(string(kernel))[1]
	interop.Record(t, "linux-seals", m.finished(interop.PeerSeals))
}

// startNIC runs the NIC with SAs of `ip xfrm state`.
func startNIC(t *testing.T, keys string) *program.Process {
	t.Helper()
	config := filepath.Join(t.TempDir(), "nic.yaml")
	text := fmt.Sprintf("allow_legacy: true\nwire: {name: wire0, mtu: %d}\nhost: {name: host0, mtu: %d}\n", mtu, mtu)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return program.Start(t, "run", "-c", config, "-k", keys)
}

// live holds what came to the host against what left the guest.
func (m *matrix) live(t *testing.T, base string, host *rig.Socket) {
	sent, wire := flows(t, base+".flows"), interop.Frames(t, base+".pcap")
	came := receive(t, host, len(wire))
	name := filepath.Base(base)
	switch name {
	case "fragments", "atomic": // row 3
		for i, v := range came {
			if v.Word != "0x00000000" || v.Reason != "fragment" || !bytes.Equal(v.delivered, wire[i]) {
				t.Errorf("frame %d: %s %s", i+1, v.Word, v.Reason)
			}
			m.add("ESP and AH in outer fragments: left to the transport", t)
		}
		return
	case "tunnel-in-tunnel": // row 29
		for i, v := range came {
			if v.Word != "0x00000002" || v.Reason != "inner-tunnel-sa" || len(v.Records) != 2 ||
				v.Records[0].SPI != sent[i].outermost[0].spi || v.Records[0].Result != "icv-valid" || v.Records[1].Result != "not-processed" {
				t.Errorf("frame %d: %s %s %+v", i+1, v.Word, v.Reason, v.Records)
			}
			m.add("ESP tunnel in ESP tunnel: the outer is opened", t)
		}
		return
	}
	suites := suitesOf(t, base+".xfrm")
	decap := replay(t, base+".xfrm", base+".pcap", "decap")
	if len(sent) != len(wire) || len(decap) != len(wire) {
		t.Fatalf("%d datagrams, %d frames, %d verdicts", len(sent), len(wire), len(decap))
	}
	for i, d := range sent {
		t.Run(fmt.Sprintf("%d/%d", d.port, d.size), func(t *testing.T) {
			d.good(t, &came[i])
			opened(t, wire[i], &came[i], d.arrived(t, decap[i].delivered))
			m.add(d.group(name, suites), t)
		})
	}
}

// receive takes the frames of a capture off the host. Others are the kernels'
// own, which hold no IPsec.
func receive(t *testing.T, host *rig.Socket, n int) (came []verdict) {
	t.Helper()
	for deadline := time.Now().Add(program.Patience); len(came) < n; {
		got, err := host.Receive(time.Until(deadline))
		if err != nil {
			t.Fatalf("%d of %d frames came: %v", len(came), n, err)
		}
		body, trailer, err := status.Split(got)
		if err != nil {
			t.Fatal(err)
		}
		if trailer.Reason != status.NoIPsec && trailer.Reason != status.NotIP {
			came = append(came, verdictOf(bytes.Clone(body[:min(len(body), int(trailer.WireLen))]), &trailer))
		}
	}
	return came
}

// verdictOf is what the trailer says, in the terms of replay --json.
func verdictOf(body []byte, t *status.Trailer) verdict {
	v := verdict{
		Word: "0x" + t.Word.String(), CryptoDone: t.Word.Done(), NextCryptoDone: t.Word.Next(),
		CryptoStatus: t.Word.Code().String(), Reason: t.Reason.String(), delivered: body,
	}
	for _, r := range t.Records[:t.N] {
		v.Records = append(v.Records, record{
			Portion: r.Portion.String(), Protocol: sa.Protocol(r.Protocol).String(), SPI: fmt.Sprintf("0x%08x", r.SPI),
			Result: r.State.String(), Seq: r.Number, IPOffset: int(r.IP), IPsecOffset: int(r.IPsec),
			PayloadOffset: int(r.Payload), PayloadLength: int(r.PayloadLen), PadLength: int(r.PadLen),
		})
	}
	return v
}
