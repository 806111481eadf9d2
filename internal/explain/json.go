package explain

import (
	"encoding/hex"
	"fmt"
	"io"
	"time"

	"tapsec/internal/account"
)

// Document is the account for programs (docs/json.md).
type Document struct {
	Frame      int       `json:"frame"`
	Time       time.Time `json:"time,omitzero"`
	Interface  string    `json:"interface,omitempty"`
	Carrier    string    `json:"carrier,omitempty"` // that it was taken out of
	Src        string    `json:"src,omitempty"`     // of its own packet
	Dst        string    `json:"dst,omitempty"`
	WireLength uint32    `json:"wire_length"` // bytes
	Missing    int       `json:"missing"`     // bytes at the end that the capture lacks
	Bytes      string    `json:"bytes"`       // as it came, in hex

	Verdict      string `json:"verdict"`
	Word         string `json:"word"`
	CryptoStatus string `json:"crypto_status"`
	Reason       string `json:"reason"`
	Sentence     string `json:"sentence"`
	Replayed     bool   `json:"replayed"`
	Late         bool   `json:"late"`

	Mark       Span              `json:"mark"`
	Stages     []Stage           `json:"stages"`
	Rows       []string          `json:"contract_rows"`
	Law        string            `json:"law"`
	NearMisses []account.Finding `json:"near_misses"`
	SAs        []string          `json:"sas"`
	Story      []string          `json:"story"`
	Others     []Other           `json:"others"`
}

// Traced is the account of a running NIC's frame (docs/json.md).
type Traced struct {
	Document
	Transport string `json:"transport,omitempty"` // what the transport in the NIC's process did
	Queue     uint16 `json:"queue"`               // that it came through; frames are numbered on each
	Lost      uint64 `json:"lost"`                // frames before it that nobody had room for
}

// Text writes the account in short.
func (t *Traced) Text(to io.Writer, colour bool) error {
	from := t.Interface
	if t.Queue > 0 {
		from += fmt.Sprintf(", queue %d", t.Queue)
	}
	if t.Lost > 0 {
		fmt.Fprintf(to, "%d frames came faster than they were told of\n\n", t.Lost)
	}
	return t.short(to, from, t.Transport, colour)
}

// Document returns the account. Lists are empty rather than missing.
func (f *Frame) Document() *Document {
	t := &f.Trailer
	d := &Document{
		Frame: f.Number, Time: f.Time.UTC(), Interface: f.Interface, Carrier: f.Carrier, Verdict: account.VerdictOf(t.Word, f.cut).String(), WireLength: t.WireLen, Missing: f.Missing, Bytes: hex.EncodeToString(f.Bytes),
		Word: "0x" + t.Word.String(), CryptoStatus: t.Word.Code().String(), Reason: t.Reason.Qualified(), Sentence: t.Reason.Sentence(),
		Replayed: f.Replayed, Late: f.Late,
		Mark: f.Span(), Stages: f.stages(), Rows: f.Rows(), Law: f.law(),
		NearMisses: list(f.Near), SAs: list(f.Names), Story: list(f.story()), Others: list(f.Others()),
	}
	if f.src.IsValid() {
		d.Src, d.Dst = f.src.String(), f.dst.String()
	}
	return d
}

func list[T any](all []T) []T { return append([]T{}, all...) }
