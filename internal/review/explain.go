package review

import (
	"encoding/json"
	"errors"
	"fmt"

	"tapsec/appliance"
	"tapsec/internal/console"
	"tapsec/internal/explain"
	"tapsec/internal/files"
)

// Explain tells of one frame of the capture that is named as CAPTURE or CAPTURE:N, also where the
// capture cannot be read to its end, which is an error nevertheless. Errors are marked as those
// of Replay.
func Explain(o Options, which string) error {
	var number int
	colour, err := console.Colour(o.Color, o.Stdout)
	if err == nil {
		o.In, number, err = explain.Which(which)
	}
	if err != nil {
		return inputError(err)
	}
	c, err := o.load()
	if err != nil {
		return err
	}
	in, err := files.Open(o.In, o.Stdin)
	if err != nil {
		return inputError(err)
	}
	defer in.Close()
	c, frames, _, err := o.open(c, in)
	if err != nil {
		return inputError(err)
	}
	nic, err := appliance.NewOffline(c)
	if err != nil {
		return inputError(err)
	}
	f, err := explain.Capture(nic, c, frames, number)
	if err != nil {
		err = inputError(fmt.Errorf("%s: %w", files.Name(o.In), err))
	}
	if f == nil {
		return err
	}
	return errors.Join(o.tell(f, colour), err)
}

// tell writes the account of a frame.
func (o *Options) tell(f *explain.Frame, colour bool) error {
	if !o.JSON {
		return f.Text(o.Stdout, files.Name(o.In), colour)
	}
	text, err := json.MarshalIndent(f.Document(), "", "  ")
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(o.Stdout, "%s\n", text)
	return err
}
