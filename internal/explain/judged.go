package explain

import (
	"bytes"

	"tapsec/internal/account"
	"tapsec/pipeline"
	"tapsec/status"
)

// Judged is the account of a frame that a running NIC has judged, as it came. Its number is
// that on its queue. tell asks the pipeline about a copy, and is asked later than the frame
// was judged; where the SAs have changed meanwhile, the account is of now, and says so. What
// only a whole capture tells is not in it.
func Judged(number int, iface string, came []byte, t *status.Trailer, name func(handle uint32) string,
	tell func(frame []byte, step func(pipeline.Step)) []byte) *Frame {
	f := &Frame{Number: number, Interface: iface, Time: t.Time(), Bytes: bytes.Clone(came), Trailer: *t}
	f.src, f.dst = account.Ends(came)
	body, now, err := status.Split(tell(came, func(s pipeline.Step) { f.Steps = append(f.Steps, s) }))
	if err != nil {
		panic("explain: " + err.Error()) // a pipeline writes trailers
	}
	if now.Word.Done() {
		f.Opened = body
	}
	if now.Word != t.Word&^status.SADeleteReq || now.Reason != t.Reason {
		f.Trailer, f.then = now, t.Reason
	}
	for _, rec := range f.Trailer.Records[:f.Trailer.N] {
		f.Names = append(f.Names, name(rec.Handle))
	}
	return f
}
