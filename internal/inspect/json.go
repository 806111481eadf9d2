package inspect

import (
	"encoding/json"
	"strconv"
	"time"

	"tapsec/internal/account"
	"tapsec/sa"
	"tapsec/status"
)

// appendJSON appends a frame's object on one line (docs/json.md). It does without
// encoding/json, which would cost several times as much as judging the frame.
func (f *frame) appendJSON(b []byte) []byte {
	t := &f.trailer
	o := object{append(b, '{')}
	o.number("frame", uint64(f.Info.Number))
	if !f.Time.IsZero() {
		o.time("time", f.Time)
	}
	if f.Interface != "" {
		o.text("interface", f.Interface)
	}
	if f.Carrier != "" {
		o.word("carrier", f.Carrier)
	}
	if f.src.IsValid() {
		o.address("src", f.src)
		o.address("dst", f.dst)
	}
	o.number("wire_length", uint64(t.WireLen))
	if f.Missing > 0 {
		o.number("missing", uint64(f.Missing))
	}
	o.flag("judged", f.verdict != account.NotJudged)
	o.hex("word", uint32(t.Word))
	o.flag("crypto_done", t.Word.Done())
	o.flag("next_crypto_done", t.Word.Next())
	o.flag("sa_delete_req", t.Word.DeleteSA())
	o.word("crypto_status", t.Word.Code().String())
	o.word("reason", t.Reason.String())
	o.word("sentence", t.Reason.Sentence())
	o.flag("replayed", f.Replayed)
	o.flag("late", f.Late)
	o.word("form", t.Form.String())
	o.number("removed", uint64(t.Removed))
	if f.Unmatched {
		o.name("unmatched")
		o.b = append(o.b, '{')
		o.word("protocol", f.Header.Protocol.String())
		o.hex("spi", uint32(f.Header.SPI))
		o.address("src", f.Header.Src)
		o.address("dst", f.Header.Dst)
		o.b = append(o.b, '}')
	}
	o.name("records")
	o.b = append(o.b, '[')
	for n := range t.Records[:t.N] {
		o.record(&t.Records[n], f.names[n])
	}
	return append(o.b, "]}\n"...)
}

// record is the account of one IPsec header.
func (o *object) record(rec *status.Record, name string) {
	if o.b[len(o.b)-1] == '}' {
		o.b = append(o.b, ',')
	}
	o.b = append(o.b, '{')
	o.word("portion", rec.Portion.String())
	o.word("protocol", sa.Protocol(rec.Protocol).String())
	o.hex("spi", rec.SPI)
	o.number("seq", rec.Number)
	if name != "" {
		o.text("sa", name)
	} else {
		o.hex("sa", rec.SPI)
	}
	o.word("result", rec.State.String())
	o.word("reason", rec.Reason.String())
	o.number("ip_offset", uint64(rec.IP))
	o.number("ipsec_offset", uint64(rec.IPsec))
	o.number("payload_offset", uint64(rec.Payload))
	o.number("payload_length", uint64(rec.PayloadLen))
	o.number("pad_length", uint64(rec.PadLen))
	o.number("next_header", uint64(rec.NextHeader))
	o.b = append(o.b, '}')
}

// object appends the fields of a JSON object.
type object struct{ b []byte }

func (o *object) name(name string) {
	if o.b[len(o.b)-1] != '{' {
		o.b = append(o.b, ',')
	}
	o.b = append(append(append(o.b, '"'), name...), `":`...)
}

func (o *object) number(name string, n uint64) {
	o.name(name)
	o.b = strconv.AppendUint(o.b, n, 10)
}

func (o *object) flag(name string, v bool) {
	o.name(name)
	o.b = strconv.AppendBool(o.b, v)
}

func (o *object) hex(name string, n uint32) {
	o.name(name)
	o.b = append(appendHex(append(o.b, `"0x`...), n), '"')
}

func (o *object) address(name string, a interface{ AppendTo([]byte) []byte }) {
	o.name(name)
	o.b = append(a.AppendTo(append(o.b, '"')), '"')
}

// time is RFC 3339 in UTC, with nanoseconds.
func (o *object) time(name string, t time.Time) {
	o.name(name)
	t = t.UTC()
	year, month, day := t.Date()
	if year < 1000 || year > 9999 {
		o.b = t.AppendFormat(append(o.b, '"'), `2006-01-02T15:04:05.000000000Z07:00"`)
		return
	}
	b := strconv.AppendInt(append(o.b, '"'), int64(year), 10)
	b = appendTwo(append(b, '-'), int(month))
	b = appendTwo(append(b, '-'), day)
	o.b = append(appendClock(append(b, 'T'), t, 9), `Z"`...)
}

// word appends text of our own, which needs no escapes.
func (o *object) word(name, v string) {
	o.name(name)
	o.b = append(append(append(o.b, '"'), v...), '"')
}

// text appends text from elsewhere, escaped where necessary.
func (o *object) text(name, v string) {
	o.name(name)
	for n := range len(v) {
		if c := v[n]; c < ' ' || c > '~' || c == '"' || c == '\\' || c == '<' || c == '>' || c == '&' {
			quoted, err := json.Marshal(v)
			if err != nil {
				panic("inspect: " + err.Error()) // a string can be quoted
			}
			o.b = append(o.b, quoted...)
			return
		}
	}
	o.b = append(append(append(o.b, '"'), v...), '"')
}
