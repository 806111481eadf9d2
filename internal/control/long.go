package control

import (
	"bufio"
	"io"
	"iter"
	"net/http"
	"time"
)

// longAnswer is a JSON document with a list that is made while it is sent, so that a million
// items take no more memory than one. Each part of it has the time of a request.
type longAnswer struct{ w *bufio.Writer }

func newLongAnswer(w http.ResponseWriter) *longAnswer {
	return &longAnswer{bufio.NewWriterSize(patient{w}, 1<<16)}
}

// patient is an answer with a new deadline for each write.
type patient struct{ http.ResponseWriter }

// Write writes.
func (p patient) Write(b []byte) (int, error) {
	_ = http.NewResponseController(p.ResponseWriter).SetWriteDeadline(time.Now().Add(serverPause)) // a socket has deadlines
	return p.ResponseWriter.Write(b)
}

// list sends a list, indented as what it is in.
func (a *longAnswer) list(indent string, items iter.Seq[any]) {
	between, after := "[\n", "[]"
	for item := range items {
		io.WriteString(a.w, between+indent+"  ")
		if _, err := a.w.Write(encoded(indent+"  ", item)); err != nil {
			return // the reader has left
		}
		between, after = ",\n", "\n"+indent+"]"
	}
	io.WriteString(a.w, after)
}

// end sends what is left.
func (a *longAnswer) end(text string) {
	io.WriteString(a.w, text+"\n")
	a.w.Flush()
}
