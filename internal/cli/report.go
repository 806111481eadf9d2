package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"tapsec/capture"
	"tapsec/sa"
	"tapsec/status"
)

// reporter says what became of frames, a line or a JSON object each.
type reporter struct {
	out    io.Writer
	json   bool
	names  map[uint32]string // SAs by handle
	counts map[string]int    // frames by outcome
	total  int
}

func newReporter(out io.Writer, json bool) *reporter {
	return &reporter{out: out, json: json, names: map[uint32]string{}, counts: map[string]int{}}
}

// frameReport is the account of one frame as JSON has it.
type frameReport struct {
	Frame          int            `json:"frame"`
	Time           string         `json:"time,omitempty"`
	Interface      string         `json:"interface,omitempty"`
	WireLength     uint32         `json:"wire_length"`
	Missing        int            `json:"missing,omitempty"` // bytes that the capture's snap length cut off
	Judged         bool           `json:"judged"`            // false: the frame fails, and cut short as it is nobody knows
	Word           string         `json:"word"`
	CryptoDone     bool           `json:"crypto_done"`
	NextCryptoDone bool           `json:"next_crypto_done"`
	SADeleteReq    bool           `json:"sa_delete_req"`
	CryptoStatus   string         `json:"crypto_status"`
	Reason         string         `json:"reason"`
	Sentence       string         `json:"sentence"`
	Form           string         `json:"form"`
	Removed        uint8          `json:"removed"`
	Unmatched      *unmatched     `json:"unmatched,omitempty"`
	Records        []recordReport `json:"records"`
}

// recordReport is the account of one IPsec header.
type recordReport struct {
	Portion       string `json:"portion"`
	Protocol      string `json:"protocol"`
	SPI           string `json:"spi"`
	Seq           uint64 `json:"seq"`
	SA            string `json:"sa"`
	Result        string `json:"result"`
	Reason        string `json:"reason"`
	IPOffset      uint16 `json:"ip_offset"`
	IPsecOffset   uint16 `json:"ipsec_offset"`
	PayloadOffset uint16 `json:"payload_offset"`
	PayloadLength uint16 `json:"payload_length"`
	PadLength     uint8  `json:"pad_length"`
	NextHeader    uint8  `json:"next_header"`
}

// frame reports one delivered frame from its trailer, and returns the sentence
// about it.
func (r *reporter) frame(frame []byte, info capture.Info) (string, error) {
	body, t, err := status.Split(frame)
	if err != nil {
		return "", err
	}
	r.total++
	fate := outcome(t.Word, info.Missing)
	r.counts[fate]++
	missing := findUnmatched(body, &t)
	line := r.line(&t, missing, fate == notJudged)
	if info.Missing > 0 {
		line += fmt.Sprintf(" (the capture lacks its last %d bytes)", info.Missing)
	}
	if !r.json {
		_, err = fmt.Fprintf(r.out, "%6d  %-10s  %s\n", info.Number, fate, line)
		return line, err
	}
	b, err := json.Marshal(r.object(&t, info, missing))
	if err == nil {
		_, err = r.out.Write(append(b, '\n'))
	}
	return line, err
}

// notJudged is the outcome of a frame that the capture has cut short: what is
// there fails, and says nothing of what was sent.
const notJudged = "not judged"

// outcome is a frame's fate in one word.
func outcome(w status.Word, missing int) string {
	switch {
	case w.Code() != status.Success && missing > 0:
		return notJudged
	case !w.Done():
		return "left alone"
	case w.Code() != status.Success:
		return "FAILED"
	case w.Next():
		return "good, both"
	}
	return "good"
}

// line is the frame's account on one line: status where it failed, the SAs that
// matched and the header that matched none, and the reason as a sentence.
func (r *reporter) line(t *status.Trailer, missing *unmatched, cut bool) string {
	var b strings.Builder
	if t.Word.Code() != status.Success && !cut {
		fmt.Fprintf(&b, "%s  ", t.Word.Code())
	}
	for i, rec := range t.Records[:t.N] {
		if i > 0 {
			b.WriteString(", ")
		}
		fmt.Fprintf(&b, "%s %s %s seq %d", rec.Portion, sa.Protocol(rec.Protocol), r.sa(&rec), rec.Number)
	}
	if t.N > 0 {
		b.WriteString(": ")
	}
	if t.Word.Done() && t.Word.Code() == status.Success && t.Reason != status.Verified {
		b.WriteString("the tunnel is good, what it carries is left alone: ")
	}
	if missing != nil {
		fmt.Fprintf(&b, "%s: ", missing)
	}
	if cut {
		b.WriteString("nobody can check what was not captured")
	} else {
		b.WriteString(t.Reason.Sentence())
	}
	if t.Word.DeleteSA() {
		b.WriteString("; the NIC asks for the SA's deletion")
	}
	return b.String()
}

// sa names a record's SA; in a trailer of another program handles mean nothing
// here, so the SPI stands in.
func (r *reporter) sa(rec *status.Record) string {
	if name := r.names[rec.Handle]; name != "" {
		return name
	}
	return fmt.Sprintf("0x%08x", rec.SPI)
}

func (r *reporter) object(t *status.Trailer, info capture.Info, missing *unmatched) frameReport {
	f := frameReport{
		Frame: info.Number, Interface: info.Interface, WireLength: t.WireLen, Missing: info.Missing,
		Judged:     outcome(t.Word, info.Missing) != notJudged,
		Word:       fmt.Sprintf("0x%s", t.Word),
		CryptoDone: t.Word.Done(), NextCryptoDone: t.Word.Next(), SADeleteReq: t.Word.DeleteSA(),
		CryptoStatus: t.Word.Code().String(), Reason: t.Reason.String(), Sentence: t.Reason.Sentence(),
		Form: t.Form.String(), Removed: t.Removed, Unmatched: missing, Records: []recordReport{},
	}
	if !info.Time.IsZero() {
		f.Time = info.Time.UTC().Format("2006-01-02T15:04:05.000000000Z07:00")
	}
	for _, rec := range t.Records[:t.N] {
		f.Records = append(f.Records, recordReport{
			Portion: rec.Portion.String(), Protocol: sa.Protocol(rec.Protocol).String(),
			SPI: fmt.Sprintf("0x%08x", rec.SPI), Seq: rec.Number, SA: r.sa(&rec),
			Result: rec.State.String(), Reason: rec.Reason.String(),
			IPOffset: rec.IP, IPsecOffset: rec.IPsec, PayloadOffset: rec.Payload, PayloadLength: rec.PayloadLen,
			PadLength: rec.PadLen, NextHeader: rec.NextHeader,
		})
	}
	return f
}

// summary counts the frames by outcome.
func (r *reporter) summary() string {
	both := ""
	if n := r.counts["good, both"]; n > 0 {
		both = fmt.Sprintf(" (%d of them in both portions)", n)
	}
	cut := ""
	if n := r.counts[notJudged]; n > 0 {
		cut = fmt.Sprintf(", %d not judged since the capture lacks their ends", n)
	}
	return fmt.Sprintf("%s: %d good%s, %d failed, %d left alone%s",
		count(r.total, "frame"), r.counts["good"]+r.counts["good, both"], both, r.counts["FAILED"], r.counts["left alone"], cut)
}

// count is a number of things.
func count(n int, thing string) string {
	if n != 1 {
		thing += "s"
	}
	return fmt.Sprintf("%d %s", n, thing)
}
