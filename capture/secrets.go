package capture

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
)

// Types of secrets in a Decryption Secrets Block (draft-ietf-opsawg-pcapng, section
// 4.7), which are four letters each.
const (
	SecretSAs uint32 = 0x54534543 // TSEC: a configuration with SAs (docs/secrets.md)
	SecretESP uint32 = 0x45535053 // ESPS: rows of Wireshark's table esp_sa, ten columns
)

const (
	blockSecrets = 10
	secretsHead  = 8 // bytes: type and length

	// MaxSecrets bounds in bytes how far into a capture secrets are looked for.
	MaxSecrets = 4 << 20
)

// Secret is the content of one Decryption Secrets Block.
type Secret struct {
	Type uint32
	Data []byte
}

// Secrets returns the secrets before the first frame; a pcap file has none. It looks ahead:
// Next and a Copy still get everything. It comes before the first Next, and waits for the first
// frame as Next does.
func (r *Reader) Secrets() (found []Secret, err error) {
	if _, ok := r.format.(*pcapng); !ok {
		return nil, nil
	}
	p := pcapng{}
	for at := 0; ; {
		kind, body, err := r.peekBlock(&p, at)
		switch {
		case err == io.EOF || errors.Is(err, errTooFar) || kind == blockEnhanced || kind == blockPacket || kind == blockSimple:
			return found, nil
		case err != nil:
			return nil, fmt.Errorf("capture: %w", err)
		}
		if kind == blockSecrets {
			b, err := r.peek(at + 8 + int(body))
			if err != nil {
				return nil, fmt.Errorf("capture: %w", err)
			}
			if b = b[at+8:]; len(b) < secretsHead || int64(p.order.Uint32(b[4:])) > int64(len(b)-secretsHead) {
				return nil, errors.New("capture: a block of secrets ends inside them")
			}
			found = append(found, Secret{p.order.Uint32(b), slices.Clone(b[secretsHead:][:p.order.Uint32(b[4:])])})
		}
		at += 12 + int(body)
	}
}

// peekBlock is pcapng.block for a block that begins at bytes ahead.
func (r *Reader) peekBlock(p *pcapng, at int) (kind uint32, body int64, err error) {
	b, err := r.peek(at + 12)
	if err != nil {
		return 0, 0, err
	}
	return p.block(bufio.NewReader(bytes.NewReader(b[at:])))
}

// peek looks n bytes ahead; the error is io.EOF if there are fewer.
func (r *Reader) peek(n int) ([]byte, error) {
	if n > MaxSecrets {
		return nil, errTooFar
	}
	if n > r.in.Size() {
		r.in = bufio.NewReaderSize(r.in, max(n, min(2*r.in.Size(), MaxSecrets)))
	}
	return r.in.Peek(n)
}

// OwnRows is the first line of our own rows (SecretESP), a comment to Wireshark.
const OwnRows = "# tapsec\n"

// Own reports whether the secret is one that tapsec wrote.
func (s Secret) Own() bool {
	return s.Type == SecretSAs || s.Type == SecretESP && bytes.HasPrefix(s.Data, []byte(OwnRows))
}

// drops reports whether a Copy leaves a block out: what its program wants left out of changed
// files (draft-ietf-opsawg-pcapng, section 4.10), and our own keys, which only go where somebody
// asks for them.
func (c *Copy) drops(in *bufio.Reader, kind uint32, order binary.ByteOrder) bool {
	if kind != blockSecrets {
		return kind == blockOwn
	}
	head, _ := in.Peek(secretsHead + len(OwnRows))
	return len(head) >= secretsHead && Secret{order.Uint32(head), head[secretsHead:]}.Own()
}

var errTooFar = fmt.Errorf("expected at most %d bytes in front of the first frame", MaxSecrets)

// WithSecrets makes the Copy write secrets before all frames. It comes before the first Next.
// Of the capture's secrets, our own are always left out; those of others stay.
func (c *Copy) WithSecrets(secrets ...Secret) {
	if c.secrets = secrets; c.begun {
		c.writeSecrets()
	}
}

func (c *Copy) writeSecrets() {
	for _, s := range c.secrets {
		c.begin(blockSecrets)
		c.u32(s.Type)
		c.u32(uint32(len(s.Data)))
		c.buf = append(c.buf, s.Data...)
		c.put()
	}
	c.secrets = nil
}
