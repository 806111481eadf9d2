package testbed

import (
	"errors"
	"fmt"
	"io"
	"time"

	"tapsec/internal/lab/conformance"
	"tapsec/internal/wrap"
)

// Bed is a NIC that takes frames from the wire and answers with what its host receives.
type Bed interface {
	conformance.NIC
	Load(l *conformance.Setup, d time.Duration) (Load, error)
}

// Show sends every case of the contract's table to a NIC, prints what came back in the
// table's order, and then sends mixed traffic for a time. It reports whether all of it was
// annotated as the contract says.
func Show(out io.Writer, b Bed, traffic time.Duration) (good bool, err error) {
	setups := conformance.Contract()
	results, err := conformance.Run(b, setups)
	if err != nil {
		return false, err
	}
	conformance.Sort(results)
	fmt.Fprintf(out, "\n%-4s %-44s %-9s %-9s %-4s %s\n     CryptoStatus, reason\n", "row", "frame", "expected", "seen", "Done", "Next")
	wrong := 0
	for i := range results {
		fmt.Fprintln(out, line(&results[i]))
		if !results[i].Passed() {
			wrong++
		}
	}
	fmt.Fprintf(out, "\n%d of %d frames annotated as expected.\n", len(results)-wrong, len(results))
	if traffic == 0 {
		return wrong == 0, nil
	}
	good, err = showLoad(out, b, setups, traffic)
	return good && wrong == 0, err
}

// line is a result's entry in the table: two lines, or more if it differs.
func line(r *conformance.Result) string {
	w, mark := r.Seen.Word, ""
	if !r.Passed() {
		mark = fmt.Sprintf(" <-- expected %s, %s", r.Word, r.Reason)
	}
	const indent = 5
	said := fmt.Sprintf("%s, %s%s", w.Code(), r.Seen.Reason.Sentence(), mark)
	return fmt.Sprintf("%-4s %-44s %-9s %-9s %-4d %d\n     %s",
		r.Row, r.Title, r.Word, w, bit(w.Done()), bit(w.Next()), wrap.Text(said, indent, wrap.Width-indent))
}

func bit(b bool) int {
	if b {
		return 1
	}
	return 0
}

// showLoad sends mixed traffic: the cases of the setup with both layers, over and
// over.
func showLoad(out io.Writer, b Bed, setups []conformance.Setup, d time.Duration) (good bool, err error) {
	for i := range setups {
		if setups[i].Name != "layers" {
			continue
		}
		if err := b.Ready(&setups[i]); err != nil {
			return false, err
		}
		r, err := b.Load(&setups[i], d)
		if err != nil {
			return false, err
		}
		fmt.Fprintln(out, wrap.Text(fmt.Sprintf("Mixed traffic: %d frames sent in %.1f s, %d received, %d wrong or out of order.",
			r.Sent, r.Took.Seconds(), r.Received, r.Wrong), 2, wrap.Width))
		return r.Sent == r.Received && r.Wrong == 0, nil
	}
	return false, errors.New("no setup with both layers in the table")
}
