package control

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"syscall"
	"time"

	"tapsec/sa"
)

const (
	clientPause = 2 * time.Second
	maxAsking   = 8        // requests under way of one Client; others wait
	maxAnswer   = 64 << 20 // bytes; a document may list a great many SAs
)

// Client asks the program that listens on one socket. It may be used by several
// goroutines, and goes on working when that program is started anew. Every
// request ends within two seconds; its error is one sentence.
type Client struct {
	path string
	http http.Client
}

// Dial makes a Client and asks once, to see whether somebody is there.
func Dial(path string) (*Client, error) {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", path)
	}
	c := &Client{path, http.Client{
		Timeout:   clientPause,
		Transport: &http.Transport{DialContext: dial, DisableKeepAlives: true, MaxConnsPerHost: maxAsking},
	}}
	if err := c.Get("", new(Index)); err != nil {
		return nil, err
	}
	return c, nil
}

// Get decodes a document into v; the name "" is that of the Index.
func (c *Client) Get(name string, v any) error { return c.do(http.MethodGet, name, nil, v) }

// Update tells the NIC the high half of an SA's sequence numbers. The error wraps
// sa.ErrUnknown where the NIC does not hold the SA.
func (c *Client) Update(id sa.ID, high uint32) error {
	return c.post("update", id, &high)
}

// Delete takes an SA from the NIC. The error wraps sa.ErrUnknown where the NIC
// does not hold it.
func (c *Client) Delete(id sa.ID) error { return c.post("delete", id, nil) }

func (c *Client) post(name string, id sa.ID, high *uint32) error {
	body, err := json.Marshal(newChange(id, high))
	if err != nil {
		return fmt.Errorf("control socket %s: %w", c.path, err)
	}
	err = c.do(http.MethodPost, name, body, nil)
	if bad := (*refusal)(nil); errors.As(err, &bad) && bad.status == http.StatusNotFound {
		return fmt.Errorf("control socket %s: %s: %w", c.path, id, sa.ErrUnknown)
	}
	return err
}

func (c *Client) do(method, name string, body []byte, v any) error {
	r, err := http.NewRequest(method, "http://tapsec/"+name, bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("control socket %s: %w", c.path, err)
	}
	answer, err := c.http.Do(r)
	if err != nil {
		return c.unheard(err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(io.LimitReader(answer.Body, maxAnswer))
	if err != nil {
		return c.unheard(err)
	}
	switch {
	case answer.StatusCode >= 300:
		var said struct{ Error string }
		if json.Unmarshal(text, &said) != nil || said.Error == "" {
			said.Error = answer.Status
		}
		return fmt.Errorf("control socket %s: %w", c.path, refuse(answer.StatusCode, "%s", said.Error))
	case v == nil:
		return nil
	}
	if err := json.Unmarshal(text, v); err != nil {
		return fmt.Errorf("control socket %s: the answer to /%s is not what this program expects (%w): is it of the same version?", c.path, name, err)
	}
	return nil
}

// unheard says why there was no answer, and what to do.
func (c *Client) unheard(err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("control socket %s does not exist: is tapsec running, with its control socket there? (%w)", c.path, fs.ErrNotExist)
	case errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("control socket %s: nobody listens any more (%w): start the program again that made it", c.path, syscall.ECONNREFUSED)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("control socket %s is for the user who started tapsec, and root (%w)", c.path, fs.ErrPermission)
	case os.IsTimeout(err):
		return fmt.Errorf("control socket %s: no answer in %v (%w): is the program stopped?", c.path, clientPause, os.ErrDeadlineExceeded)
	}
	return fmt.Errorf("control socket %s: %w", c.path, err)
}
