package review

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"

	"tapsec/appliance"
	"tapsec/configs"
	"tapsec/internal/explain"
	"tapsec/internal/files"
	"tapsec/internal/inspect"
	"tapsec/internal/report"
)

// reporting is the page of --report while a capture is read.
type reporting struct {
	*report.Report
	to io.WriteCloser
}

// reporting opens the page; nil where none is asked for.
func (o *Options) reporting() (*reporting, error) {
	if o.Report == "" {
		return nil, nil
	}
	in := files.Inputs{Paths: append([]string{o.Config, o.In, o.Expect, o.Out, "-"}, o.Keys...), Stdin: o.Stdin}
	to, err := in.Create("--report", o.Report, 0o666)
	return &reporting{report.New(), to}, inputError(err)
}

// write reads the capture once more for the failures, and writes the page.
func (r *reporting) write(o *Options, c *configs.Config, sum *inspect.Summary) error {
	if r == nil {
		return nil
	}
	explained, why := o.explained(c, r.Explain())
	out := bufio.NewWriter(r.to)
	err := r.Write(out, files.Name(o.In), sum, explained, why)
	if err == nil {
		err = out.Flush()
	}
	return errors.Join(err, r.to.Close())
}

// explained reads the capture a second time, where it is a file; else it says why not. Where it
// cannot be read to its end, which was said already, it takes what is before that.
func (o *Options) explained(c *configs.Config, numbers []int) (_ []*explain.Frame, why string) {
	switch info, err := os.Stat(o.In); {
	case len(numbers) == 0:
		return nil, ""
	case o.Shown:
		return nil, "The frames came with their verdicts; explain tells of a capture of the wire."
	case o.In == "-", err == nil && !info.Mode().IsRegular():
		return nil, "The capture came through a pipe, which is not read twice."
	}
	explained, err := o.again(c, numbers)
	if err != nil && len(explained) == 0 {
		return nil, fmt.Sprintf("The capture could not be read a second time: %v.", err)
	}
	return explained, ""
}

// again explains frames of the capture's file.
func (o *Options) again(c *configs.Config, numbers []int) ([]*explain.Frame, error) {
	in, err := os.Open(o.In)
	if err != nil {
		return nil, err
	}
	defer in.Close()
	frames, err := o.reader(in)
	if err != nil {
		return nil, err
	}
	nic, err := appliance.NewOffline(c)
	if err != nil {
		return nil, err
	}
	return explain.Frames(nic, c, frames, numbers)
}
