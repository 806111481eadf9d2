package bench

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"net/netip"
	"runtime"

	"tapsec/appliance"
	"tapsec/configs"
	"tapsec/internal/lab/forge"
	"tapsec/internal/outbound"
	"tapsec/keys"
	"tapsec/pipeline"
	"tapsec/sa"
	"tapsec/status"
	"tapsec/transport"
)

// Table is what many SAs cost, from the text of a configuration to a frame of one of
// them. The result is the last step's, on one core, and its ratio reload/read.
type Table struct {
	Result
	SAs   int         `json:"sas"`
	Steps []TableStep `json:"steps"`
}

// TableStep is one thing that is done with all of them.
type TableStep struct {
	Step  string  `json:"step"`
	CPU   float64 `json:"cpu_ns"` // an SA, of all the process's threads; for Frame a frame
	Bytes float64 `json:"bytes"`  // an SA, that stay in use afterwards
}

// The steps.
const (
	ReadTable   = "read"      // the configuration, from its text
	Offload     = "offload"   // all into a NIC
	Transported = "transport" // all into a transport without a state file
	ReloadTable = "reload"    // the same configuration read again, and the NIC's SAs replaced: one has another key
	Frame       = "frame"     // of 64 octets, each of an SA at random, through the NIC's pipeline
)

// chosen is the number of SAs whose frames are processed.
const chosen = 4096

// measureTable does each step once, since each is long enough.
func (r *Report) measureTable(e effort) error {
	sas := tableSAs(e.sas)
	text, err := tableText(sas)
	if err != nil {
		return err
	}
	frames, err := tableFrames(sas)
	if err != nil {
		return err
	}
	sas[0].EncryptionKey = newKey(sas[0].Suite.EncryptionKeyLen())
	next, err := tableText(sas)
	if err != nil {
		return err
	}
	sas = nil
	var c *configs.Config
	var nic *appliance.Adapter
	var host *transport.Receiver
	steps := []struct {
		name string
		do   func() error
	}{
		{ReadTable, func() (err error) { c, err = configs.Parse("table.yaml", text); return err }},
		{Offload, func() (err error) { nic, err = appliance.NewAdapter(c); return err }},
		{Transported, func() (err error) {
			host, err = transport.New(transport.Config{Fallback: pipeline.NewSoftware(), SAs: c.AllBundles()})
			return err
		}},
		{ReloadTable, func() (err error) {
			if c, err = configs.Parse("table.yaml", next); err != nil {
				return err
			}
			return nic.Offload(c)
		}},
		{Frame, func() error { return tableRound(nic, frames) }},
	}
	r.Table.SAs = e.sas
	for _, step := range steps {
		bytes, cpu := inUse(), processTime()
		if err := step.do(); err != nil {
			return fmt.Errorf("%s: %w", step.name, err)
		}
		took, n := processTime()-cpu, e.sas
		if step.name == Frame {
			n = len(frames)
		}
		r.Table.Steps = append(r.Table.Steps, TableStep{step.name, float64(took) / float64(n), (inUse() - bytes) / float64(e.sas)})
	}
	r.Table.sum()
	runtime.KeepAlive(host)
	return nil
}

func (t *Table) sum() {
	of := map[string]float64{}
	for _, s := range t.Steps {
		of[s.Step] = s.CPU
	}
	t.CPU, t.Rate = of[Frame], 1e9/of[Frame]
	t.Ratios["reload/read"] = of[ReloadTable] / of[ReadTable]
}

// inUse is the number of bytes in use after garbage collection.
func inUse() float64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return float64(m.HeapAlloc)
}

// tableSAs makes SAs with addresses, SPIs and keys of their own.
func tableSAs(n int) []*sa.SA {
	all := make([]*sa.SA, n)
	for i := range all {
		s := newSA(uint32(0x1000+i), sa.ESP, sa.Tunnel, Headline)
		s.Name, s.Window = fmt.Sprint("sa-", i), sa.DefaultWindow
		s.Src = netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})
		all[i] = s
	}
	return all
}

func tableText(sas []*sa.SA) ([]byte, error) {
	var b bytes.Buffer
	err := keys.WriteYAML(&b, sas)
	return b.Bytes(), err
}

// tableFrames seals a frame of each chosen SA.
func tableFrames(sas []*sa.SA) (frames [][]byte, err error) {
	packet := forge.UDP(nil, source, sink, make([]byte, 36))
	for range chosen {
		sealer, err := outbound.NewSealer(nil, sas[1+rand.IntN(len(sas)-1)]) // the first gets another key
		if err != nil {
			return nil, err
		}
		sealed, err := sealer.Seal(nil, packet)
		if err != nil {
			return nil, err
		}
		frames = append(frames, forge.AppendFrame(nil, sealed))
	}
	return frames, nil
}

// tableRound processes the frames, each of which must be good.
func tableRound(nic *appliance.Adapter, frames [][]byte) error {
	buf := make([]byte, 0, 2048)
	for i, f := range frames {
		_, t, err := status.Split(nic.Pipeline(0).Process(append(buf, f...)))
		if err != nil {
			return err
		}
		if !t.Word.Done() || t.Word.Code() != status.Success {
			return fmt.Errorf("frame %d: %s, expected a good one", i, t.Word)
		}
	}
	return nil
}

func (r *Report) writeTable(w io.Writer) {
	section(w, fmt.Sprintf("A table of %d SAs: nanoseconds of the processor and bytes, an SA", r.Table.SAs), "\tns\tbytes\t\n", r.Table.Steps, func(s TableStep) {
		fmt.Fprintf(w, "%s\t%.0f\t%s\t\n", s.Step, s.CPU, orDash(s.Step != Frame, fmt.Sprintf("%.0f", s.Bytes)))
	})
}
