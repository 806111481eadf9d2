// Package metrics serves an appliance's counters to Prometheus over HTTP. It reads the list of
// counters (docs/metrics.md) anew for each scrape.
package metrics

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"tapsec/control"
	"tapsec/internal/serve"
)

const (
	maxClients = 4 // at once; others wait
	pause      = 10 * time.Second
)

// Server answers GET /metrics on one address.
type Server struct {
	listener net.Listener
	http     http.Server
}

// Open listens on a TCP address, such as 127.0.0.1:9464, and calls counters for each scrape. What it
// lacks is logged. Anyone who can reach the address sees the names of SAs, but no key.
func Open(address string, counters func() []control.Counter, log *slog.Logger) (*Server, error) {
	l, err := net.Listen("tcp", address)
	if wrong := (*net.AddrError)(nil); errors.As(err, &wrong) {
		return nil, fmt.Errorf("--metrics: expected an address and a port, such as 127.0.0.1:9464, found %q", address)
	}
	if err != nil {
		return nil, fmt.Errorf("metrics: %w", err)
	}
	registry := prometheus.NewRegistry()
	registry.MustRegister(collector(counters))
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{EnableOpenMetrics: true}))
	s := &Server{listener: l, http: http.Server{Handler: mux, ReadTimeout: pause, WriteTimeout: pause, MaxHeaderBytes: 4 << 10,
		ErrorLog: serve.Log(log)}}
	go func() { _ = s.http.Serve(serve.Limit(l, maxClients, log)) }() // until Close
	return s, nil
}

// Address is where it listens.
func (s *Server) Address() string { return s.listener.Addr().String() }

// Close ends the server and unfinished answers.
func (s *Server) Close() error {
	if err := s.http.Close(); !errors.Is(err, net.ErrClosed) {
		return err
	}
	return nil
}

// collector gives Prometheus the list.
type collector func() []control.Counter

// Describe describes nothing: the labels are known only when they are read.
func (collector) Describe(chan<- *prometheus.Desc) {}

// Collect reads the list.
func (c collector) Collect(to chan<- prometheus.Metric) {
	for _, counter := range c() {
		for i := range counter.Samples {
			to <- metric(&counter, &counter.Samples[i])
		}
	}
}

// metric is a number of the list in Prometheus's form.
func metric(c *control.Counter, s *control.Sample) prometheus.Metric {
	labels := slices.Sorted(maps.Keys(s.Labels))
	values := make([]string, len(labels))
	for i, label := range labels {
		values[i] = s.Labels[label]
	}
	name := c.Name
	if c.Kind == "counter" {
		name += "_total"
	}
	desc := prometheus.NewDesc(name, c.Help, labels, nil)
	var m prometheus.Metric
	var err error
	switch {
	case s.Histogram != nil:
		buckets := map[float64]uint64{}
		for _, b := range s.Buckets {
			buckets[b.Bound] = b.Count
		}
		m, err = prometheus.NewConstHistogram(desc, uint64(s.Value), s.Sum, buckets, values...)
	case c.Kind == "counter":
		m, err = prometheus.NewConstMetric(desc, prometheus.CounterValue, s.Value, values...)
	default:
		m, err = prometheus.NewConstMetric(desc, prometheus.GaugeValue, s.Value, values...)
	}
	if err != nil { // a name that is not UTF-8
		return prometheus.NewInvalidMetric(desc, err)
	}
	return m
}
