//go:build linux

package appliance

import (
	"fmt"
	"slices"
	"strings"

	"tapsec/control"
	"tapsec/internal/nic"
	"tapsec/internal/outbound"
	"tapsec/pipeline"
	"tapsec/sa"
	"tapsec/status"
	"tapsec/tap"
	"tapsec/transport"
)

// counter is one entry of the list of all counters: name, unit, sentence, and the
// function that reads it. It reads numbers that are published anyway, one SA at a
// time, so that no frame waits.
type counter struct {
	name, kind, unit, help string
	read                   func(r *reading)
}

// reading collects the samples of a counter.
type reading struct {
	*Appliance
	members []*member           // the SAs asked about
	states  []transport.SAState // of those that the transport receives with
	samples []control.Sample
}

// add adds a sample. Labels are names and values in turn.
func (r *reading) add(value float64, labels ...string) {
	s := control.Sample{Value: value}
	for i := 0; i < len(labels); i += 2 {
		if s.Labels == nil {
			s.Labels = map[string]string{}
		}
		s.Labels[labels[i]] = labels[i+1]
	}
	r.samples = append(r.samples, s)
}

const (
	gauge     = "gauge"
	total     = "counter"
	histogram = "histogram"

	maxSAs = 1000 // in a list of everything; --sa names others
)

var counters = []counter{
	{"tapsec_received_frames", total, "frames", "Frames received, by the way they go.", moved(func(t *tap.Tally) uint64 { return t.In })},
	{"tapsec_received_bytes", total, "bytes", "Bytes of the frames received.", moved(func(t *tap.Tally) uint64 { return t.InBytes })},
	{"tapsec_sent_frames", total, "frames", "Frames written.", moved(func(t *tap.Tally) uint64 { return t.Out })},
	{"tapsec_sent_bytes", total, "bytes", "Bytes of the frames written.", moved(func(t *tap.Tally) uint64 { return t.OutBytes })},
	{"tapsec_kept_frames", gauge, "frames", "Frames received that the transport kept, less those that it made.", moved(func(t *tap.Tally) uint64 { return uint64(t.Kept) })},
	{"tapsec_lost_frames", total, "frames", "Frames given up, by reason: received = sent + lost + kept, oversize and uncut apart, which were not received.", readLost},
	{"tapsec_write_retries", total, "writes", "Writes that were refused for a moment and tried again.", moved(func(t *tap.Tally) uint64 { return t.Retries })},
	{"tapsec_kernel_drops", total, "frames", "Frames that the kernel dropped on an interface: tx since the queue to tapsec was full, rx since the stack refused them.", readKernel},
	{"tapsec_nic_time_seconds", histogram, "seconds", "Time of frames in the NIC, from received to given to be written, of one batch in 64.", readTimes},
	{"tapsec_engine", gauge, "", "1 for the engine that moves frames.", readEngine},

	{"tapsec_nic_status_frames", total, "frames", "Frames by CryptoStatus; CRYPTO_SUCCESS counts those left alone, too.", readStatuses},
	{"tapsec_nic_reason_frames", total, "frames", "Frames by the NIC's reason; the sum is that of the statuses.", readReasons},
	{"tapsec_nic_bundles", gauge, "bundles", "SA bundles that the NIC holds.", ofNIC(func(r *reading) { held, _ := r.adapter.sad.Room(); r.add(float64(held)) })},
	{"tapsec_nic_capacity_bundles", gauge, "bundles", "SA bundles that it has room for; 0 sets no bound.", ofNIC(func(r *reading) { _, room := r.adapter.sad.Room(); r.add(float64(room)) })},
	{"tapsec_nic_under_pressure", gauge, "", "1 while the NIC asks for SAs to be deleted.", ofNIC(func(r *reading) { r.add(one(r.adapter.sad.UnderPressure())) })},
	{"tapsec_nic_offload", gauge, "", "1 where receive offload is on: all of it, of ah, of esp.", ofNIC(readSwitches)},

	{"tapsec_capture_readers", gauge, "", "Captures and traces of the NIC's frames that are under way.", ofNIC(func(r *reading) { readers, _, _ := r.tap.Counts(); r.add(float64(readers)) })},
	{"tapsec_capture_frames", total, "frames", "Frames taken for captures and traces.", ofNIC(func(r *reading) { _, taken, _ := r.tap.Counts(); r.add(float64(taken)) })},
	{"tapsec_capture_lost_frames", total, "frames", "Frames that captures and traces lost, since they were not read fast enough.", ofNIC(func(r *reading) { _, _, lost := r.tap.Counts(); r.add(float64(lost)) })},

	{"tapsec_transport_frames", total, "frames", "Frames by the transport's verdict.", readVerdicts},
	{"tapsec_transport_reason_frames", total, "frames", "Frames held and dropped by the transport's reason.", readHeld},
	{"tapsec_transport_datagrams_waiting", gauge, "datagrams", "Datagrams that lack fragments.", ofHost(func(r *reading) { r.add(float64(r.host.consumer.Summary().Waiting)) })},
	{"tapsec_outbound_frames", total, "frames", "Frames from the stack by the sending side's reason.", readOutbound},

	{"tapsec_sas", gauge, "SAs", "SAs in force.", func(r *reading) { r.add(float64(r.roster.len())) }},
	{"tapsec_sas_untold", gauge, "SAs", "SAs that the list leaves out, since it tells of a thousand.", func(r *reading) { r.add(float64(r.roster.len() - len(r.members))) }},
	{"tapsec_sa_offloaded", gauge, "", "1 where the NIC holds the SA.", ofNIC(func(r *reading) {
		for _, m := range r.members {
			r.add(one(r.adapter.sad.Handle(m.ID()) != 0), "sa", m.Name)
		}
	})},
	{"tapsec_sa_unused_seconds", gauge, "seconds", "Time since the NIC saw an authentic packet of the SA, or since it was added.", held(func(h *pipeline.Holding) float64 { return float64(h.Unused) })},
	{"tapsec_sa_failed_frames", total, "frames", "Frames of the SA that the NIC found bad.", held(func(h *pipeline.Holding) float64 { return float64(h.Failed) })},
	{"tapsec_sa_packets", total, "packets", "Packets with a valid ICV and a fresh number.", states(func(s *transport.SAState) float64 { return float64(s.Tally.Packets) })},
	{"tapsec_sa_bytes", total, "bytes", "Their payload.", states(func(s *transport.SAState) float64 { return float64(s.Tally.Bytes) })},
	{"tapsec_sa_highest_number", gauge, "", "Highest sequence number accepted.", states(func(s *transport.SAState) float64 { return float64(s.Window.Top) })},
	{"tapsec_sa_esn_mark", gauge, "", "Highest sequence number authenticated on an ESN SA.", states(func(s *transport.SAState) float64 { return float64(s.T) })},
	{"tapsec_sa_window_packets", gauge, "packets", "Size of the replay window; 0 is no protection.", states(func(s *transport.SAState) float64 { return float64(s.Window.Size) })},
	{"tapsec_sa_window_gaps", gauge, "packets", "Numbers that never came.", states(func(s *transport.SAState) float64 { return float64(s.Window.Gaps) })},
	{"tapsec_sa_replays", total, "packets", "Packets refused, seen before.", states(func(s *transport.SAState) float64 { return float64(s.Window.Replays) })},
	{"tapsec_sa_late", total, "packets", "Packets refused, older than the window.", states(func(s *transport.SAState) float64 { return float64(s.Window.Late) })},
	{"tapsec_sa_dropped_frames", total, "frames", "Frames of the SA dropped, by the transport's reason.", readDropped},
}

// Counters reads all counters, or with a name what they say about that SA.
func (a *Appliance) Counters(name string) ([]control.Counter, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	r := reading{Appliance: a}
	if name == "" {
		r.members, _ = a.roster.after(0, maxSAs)
	} else if m := a.roster.name(name); m != nil {
		r.members = []*member{m}
	} else {
		return nil, fmt.Errorf("%s: %w", sa.Quote(name), sa.ErrUnknown)
	}
	for _, m := range r.members {
		if a.host == nil {
			break
		}
		if s, ok := a.host.consumer.State(m.ID()); ok {
			r.states = append(r.states, s)
		}
	}
	all := []control.Counter{}
	for _, c := range counters {
		r.samples = []control.Sample{}
		c.read(&r)
		if name != "" {
			r.samples = slices.DeleteFunc(r.samples, func(s control.Sample) bool { return s.Labels["sa"] != name })
		}
		slices.SortFunc(r.samples, func(a, b control.Sample) int { return strings.Compare(fmt.Sprint(a.Labels), fmt.Sprint(b.Labels)) })
		if len(r.samples) > 0 {
			all = append(all, control.Counter{Name: c.name, Kind: c.kind, Unit: c.unit, Help: c.help, Samples: r.samples})
		}
	}
	return all, nil
}

func one(is bool) float64 {
	if is {
		return 1
	}
	return 0
}

func moved(of func(*tap.Tally) uint64) func(*reading) {
	return func(r *reading) {
		s := r.nic.Summary()
		r.add(float64(int64(of(&s.ToHost))), "way", "to_host")
		r.add(float64(int64(of(&s.ToWire))), "way", "to_wire")
	}
}

func readLost(r *reading) {
	s := r.nic.Summary()
	for way, t := range map[string]*tap.Tally{"to_host": &s.ToHost, "to_wire": &s.ToWire} {
		for reason, n := range map[string]uint64{"host_down": t.HostDown, "too_long": t.TooLong, "refused": t.Refused, "oversize": t.Oversize, "uncut": t.Uncut} {
			r.add(float64(n), "way", way, "reason", reason)
		}
	}
}

func readKernel(r *reading) {
	for _, d := range r.ports.drops() {
		if d.Err == nil {
			r.add(float64(d.Tx), "interface", d.Interface, "queue", "tx")
			r.add(float64(d.Rx), "interface", d.Interface, "queue", "rx")
		}
	}
}

func readTimes(r *reading) {
	toHost, toWire := r.nic.Times()
	for way, times := range map[string]nic.Times{"to_host": toHost, "to_wire": toWire} {
		h, frames := &control.Histogram{Sum: times.Sum.Seconds()}, uint64(0)
		for i, n := range times.Frames {
			if frames += n; i < nic.NumTimes-1 {
				h.Buckets = append(h.Buckets, control.Bucket{Bound: nic.TimeBound(i).Seconds(), Count: frames})
			}
		}
		r.add(float64(frames), "way", way)
		r.samples[len(r.samples)-1].Histogram = h
	}
}

func readEngine(r *reading) {
	engine, _ := r.nic.Engine()
	r.add(1, "engine", fmt.Sprint(engine))
}

// ofNIC and ofHost read only if the process has a NIC or a transport,
// respectively.
func ofNIC(read func(*reading)) func(*reading) {
	return func(r *reading) {
		if r.adapter != nil {
			read(r)
		}
	}
}

func ofHost(read func(*reading)) func(*reading) {
	return func(r *reading) {
		if r.host != nil {
			read(r)
		}
	}
}

var readStatuses = ofNIC(func(r *reading) {
	for code := range status.Code(status.NumCodes) {
		r.add(float64(r.adapter.Code(code)), "status", code.String())
	}
})

var readReasons = ofNIC(func(r *reading) {
	for _, reason := range status.Reasons() {
		r.add(float64(r.adapter.Reason(reason)), "reason", reason.String())
	}
})

func readSwitches(r *reading) {
	active, ah, esp := r.adapter.sad.Switches()
	r.add(one(active), "of", "all")
	r.add(one(ah), "of", "ah")
	r.add(one(esp), "of", "esp")
}

var readVerdicts = ofHost(func(r *reading) {
	for verdict, n := range r.host.consumer.Summary().Verdicts {
		r.add(float64(n), "verdict", verdict)
	}
})

var readHeld = ofHost(func(r *reading) {
	for reason, n := range r.host.consumer.Summary().Reasons {
		r.add(float64(n), "reason", reason)
	}
})

var readOutbound = ofHost(func(r *reading) {
	sent := r.host.sender.Counts()
	for _, reason := range outbound.Reasons() {
		r.add(float64(sent[reason]), "reason", reason.String())
	}
})

// states reads the transport's state of each SA.
func states(of func(*transport.SAState) float64) func(*reading) {
	return ofHost(func(r *reading) {
		for _, s := range r.states {
			r.add(of(&s), "sa", s.Name)
		}
	})
}

// held reads what the NIC holds of each SA.
func held(of func(*pipeline.Holding) float64) func(*reading) {
	return ofNIC(func(r *reading) {
		for _, m := range r.members {
			if h := r.adapter.sad.Find(m.ID()); h.Handle != 0 {
				r.add(of(&h), "sa", m.Name)
			}
		}
	})
}

var readDropped = ofHost(func(r *reading) {
	for _, s := range r.states {
		for reason, n := range s.Tally.Dropped {
			if n > 0 {
				r.add(float64(n), "sa", s.Name, "reason", transport.Reason(reason).String())
			}
		}
	}
})
