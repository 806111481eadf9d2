package conformance

import (
	_ "embed"
	"html/template"
	"io"

	"tapsec/internal/page"
)

//go:embed page.html
var pageText string

var pageOf = template.Must(template.New("page").Parse(pageText))

// WriteHTML writes a report as one page for a browser, which loads nothing: first what did
// not pass, then all cases by source.
func (r *Report) WriteHTML(w io.Writer) error {
	return pageOf.Execute(w, struct {
		*Document
		Style  template.CSS
		Wrong  []resultJSON
		Totals string
	}{r.document(), page.Style(), r.wrong(), r.Totals().String()})
}

func (r *Report) wrong() (all []resultJSON) {
	for i := range r.Results {
		if !r.Results[i].Passed() {
			all = append(all, r.Results[i].object())
		}
	}
	return all
}
