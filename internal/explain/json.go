package explain

import (
	"encoding/hex"
	"time"

	"tapsec/internal/account"
)

// Document is the account for programs (docs/json.md).
type Document struct {
	Frame      int       `json:"frame"`
	Time       time.Time `json:"time,omitzero"`
	WireLength uint32    `json:"wire_length"` // bytes
	Missing    int       `json:"missing"`     // bytes at the end that the capture lacks
	Bytes      string    `json:"bytes"`       // as it came, in hex

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

// Document returns the account. Lists are empty rather than missing.
func (f *Frame) Document() *Document {
	t := &f.Trailer
	return &Document{
		Frame: f.Number, Time: f.Time.UTC(), WireLength: t.WireLen, Missing: f.Missing, Bytes: hex.EncodeToString(f.Bytes),
		Word: "0x" + t.Word.String(), CryptoStatus: t.Word.Code().String(), Reason: t.Reason.Qualified(), Sentence: t.Reason.Sentence(),
		Replayed: f.Replayed, Late: f.Late,
		Mark: f.Span(), Stages: f.Stages(), Rows: f.Rows(), Law: f.Law(),
		NearMisses: list(f.Near), SAs: list(f.Names), Story: list(f.story()), Others: list(f.Others()),
	}
}

func list[T any](all []T) []T { return append([]T{}, all...) }
