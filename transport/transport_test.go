package transport_test

import (
	"testing"

	"tapsec/pipeline"
	"tapsec/sa"
	"tapsec/transport"
)

var _ transport.Fallback = (*pipeline.Software)(nil)

func TestEmpty(t *testing.T) {
	c, err := transport.New(transport.Config{Fallback: pipeline.NewSoftware()})
	if err != nil {
		t.Fatal(err)
	}
	if _, v, r := c.Judge([]byte("no trailer")); v != transport.Drop || r != transport.NoAnnotation {
		t.Error(v, r)
	}
	_ = sa.ESP
}
