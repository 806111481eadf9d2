package pipeline_test

import (
	"fmt"
	"net/netip"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"tapsec/internal/lab/forge"
	"tapsec/pipeline"
	"tapsec/sa"
	"tapsec/status"
)

// BenchmarkBeside has one core process frames of SAs drawn from all that the NIC
// holds, while another adds and deletes SAs, keys and all, as fast as it can. It
// reports those pairs per second, and the memory that an SA takes, with its keys.
func BenchmarkBeside(b *testing.B) {
	for _, n := range []int{1, 1000, 1000000} {
		for _, changing := range []bool{false, true} {
			b.Run(fmt.Sprintf("%d/changing=%v", n, changing), func(b *testing.B) { beside(b, n, changing) })
		}
	}
}

func beside(b *testing.B, n int, changing bool) {
	before := inUse()
	sad := (&frameCase{}).nic(b)
	for i := range n {
		if _, err := sad.Add(numbered(i)); err != nil {
			b.Fatal(err)
		}
	}
	memory := float64(inUse()-before) / float64(n)
	frames := sealedBy(b, n)
	p, buffer := pipeline.New(sad, pipeline.Options{}), make([]byte, len(frames[0])+status.Tailroom)
	var pairs, stop atomic.Int64
	ended := make(chan error, 1)
	if changing {
		go func() { ended <- churn(sad, n, &pairs, &stop) }()
	} else {
		ended <- nil
	}
	i, start := 0, time.Now()
	for b.Loop() {
		copy(buffer, frames[i])
		p.Process(buffer[:len(frames[i])])
		if i++; i == len(frames) {
			i = 0
		}
	}
	b.ReportMetric(float64(pairs.Load())/time.Since(start).Seconds(), "pairs/s")
	b.ReportMetric(memory, "B/SA")
	stop.Store(1)
	if err := <-ended; err != nil {
		b.Fatal(err)
	}
	p.Batch(nil) // publishes
	if bad := uint64(b.N) - p.Counters().Reason(status.Verified); bad > 0 {
		b.Fatalf("%d frames were not verified", bad)
	}
}

// numbered is an SA like all others but for its SPI.
func numbered(i int) *sa.SA {
	return espSA(sa.Transport, func(s *sa.SA) { s.SPI = 0x1000 + uint32(i)*2654435769 })
}

// sealedBy is a frame by each of up to 4096 of n SAs, all over the table.
func sealedBy(b *testing.B, n int) (frames [][]byte) {
	packet := forge.UDP(nil, netip.AddrPortFrom(host4a, 1), netip.AddrPortFrom(host4b, 2), make([]byte, 1400-28))
	for i := range min(n, 4096) {
		s := numbered(i * (n / min(n, 4096)))
		c := frameCase{sas: []*sa.SA{s}, packet: packet}
		frames = append(frames, c.seal(b).frame)
	}
	return frames
}

func churn(sad *pipeline.SAD, n int, pairs, stop *atomic.Int64) error {
	for i := n; stop.Load() == 0; i++ {
		handle, err := sad.Add(numbered(i))
		if err == nil {
			err = sad.Delete(handle)
		}
		if err != nil {
			return err
		}
		pairs.Add(1)
	}
	return nil
}

// inUse is what is in use of the heap after all garbage has been collected.
func inUse() int64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// A worker that the SAD has not is the programmer's mistake.
func TestNewRefusesWorkers(t *testing.T) {
	for _, worker := range []int{-1, 2} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("worker %d of 2 was taken", worker)
				}
			}()
			pipeline.New(pipeline.NewSAD(sa.Profiles[0], 2), pipeline.Options{Worker: worker})
		}()
	}
}

// Under pressure the outermost SA is asked for, of an AH in no bundle and the ESP behind it the AH
// (contract row 26).
func TestOutermostIsAskedFor(t *testing.T) {
	ah := ahSA(sa.Transport, between(gw4a, gw4b))
	c := frameCase{sas: []*sa.SA{espSA(sa.Transport), espSA(sa.Tunnel), ah}}
	sad := c.nic(t)
	sad.ForcePressure(true)
	if _, trailer := process(t, sad, pipeline.Options{}, c.seal(t).frame); trailer.Word != 7 || !trailer.Records[0].DeleteSA {
		t.Errorf("word %s, %+v", trailer.Word, trailer.Records)
	}
	var asked []string
	sad.Asked(func(h pipeline.Holding) { asked = append(asked, h.Name) })
	if len(asked) != 1 || asked[0] != ah.Name {
		t.Errorf("asked for %s, want %s", asked, ah.Name)
	}
}
