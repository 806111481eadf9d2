//go:build js

// Command web is replay, explain and the report in a browser. The page gives it a capture and
// a text with keys, and gets back what there is to tell; it needs nothing else.
package main

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"syscall/js"

	"tapsec/appliance"
	"tapsec/capture"
	"tapsec/configs"
	"tapsec/internal/explain"
	"tapsec/internal/inspect"
	"tapsec/internal/report"
	"tapsec/internal/secrets"
)

func main() {
	js.Global().Set("tapsecJudge", js.FuncOf(func(_ js.Value, args []js.Value) any {
		return answer(judge(bytesOf(args[0]), bytesOf(args[1]), args[2].String()))
	}))
	js.Global().Set("tapsecExplain", js.FuncOf(func(_ js.Value, args []js.Value) any {
		return answer(explainOne(bytesOf(args[0]), bytesOf(args[1]), args[2].Int()))
	}))
	js.Global().Call("tapsecReady")
	select {}
}

func bytesOf(v js.Value) []byte {
	b := make([]byte, v.Length())
	js.CopyBytesToGo(b, v)
	return b
}

// answer is what the page gets: an object, which after a failure has a message.
func answer(found map[string]any, err error) any {
	if err != nil {
		return map[string]any{"error": err.Error()}
	}
	return found
}

// open reads the beginning of the capture, and the SAs: those of the text, or those that the
// capture carries.
func open(file, text []byte) (*configs.Config, *capture.Reader, error) {
	frames, err := capture.NewReader(bytes.NewReader(file))
	if err != nil {
		return nil, nil, err
	}
	if len(bytes.TrimSpace(text)) > 0 {
		c, err := configs.ParseKeys("keys", text)
		return c, frames, err
	}
	has, err := frames.Secrets()
	if err != nil {
		return nil, nil, err
	}
	c, err := secrets.Config("the capture", has)
	if err == nil && c == nil {
		c = configs.Default()
	}
	return c, frames, err
}

// judge returns all that is said of the frames: lines, the account, and the report's page.
func judge(file, text []byte, name string) (map[string]any, error) {
	c, frames, err := open(file, text)
	if err != nil {
		return nil, err
	}
	page := report.New()
	nic, err := appliance.NewOffline(c)
	if err != nil {
		return nil, err
	}
	var lines bytes.Buffer
	i, err := inspect.New(nic, c, &lines, inspect.Options{Watch: page.Watch})
	if err != nil {
		return nil, err
	}
	failed := i.Capture(frames, nil, func() error { return nil }) // what was read until then is shown all the same
	var table, html bytes.Buffer
	sum := i.Summary()
	explained, err := again(c, file, page.Explain())
	if failed != nil {
		err = nil // the same, for the second time
	}
	if err = errors.Join(err, sum.Table(&table), page.Write(&html, name, sum, explained, "")); err != nil {
		return nil, err
	}
	said := ""
	if failed != nil {
		said = failed.Error()
	}
	var warnings []string
	for _, w := range c.Warnings {
		warnings = append(warnings, w.String())
	}
	return map[string]any{"lines": lines.String(), "summary": table.String(), "report": html.String(),
		"frames": i.Frames(), "warnings": strings.Join(warnings, "\n"), "failed": said}, nil
}

func again(c *configs.Config, file []byte, numbers []int) ([]*explain.Frame, error) {
	if len(numbers) == 0 {
		return nil, nil
	}
	frames, err := capture.NewReader(bytes.NewReader(file))
	if err != nil {
		return nil, err
	}
	nic, err := appliance.NewOffline(c)
	if err != nil {
		return nil, err
	}
	return explain.Frames(nic, c, frames, numbers)
}

// explainOne explains one frame.
func explainOne(file, text []byte, number int) (map[string]any, error) {
	c, frames, err := open(file, text)
	if err != nil {
		return nil, err
	}
	nic, err := appliance.NewOffline(c)
	if err != nil {
		return nil, err
	}
	f, err := explain.Capture(nic, c, frames, number)
	if f == nil {
		return nil, err
	}
	var out strings.Builder
	if err != nil {
		fmt.Fprintf(&out, "%v\n\n", err)
	}
	err = f.Text(&out, "the capture", false)
	return map[string]any{"text": out.String()}, err
}
