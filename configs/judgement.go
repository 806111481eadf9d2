package configs

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"tapsec/internal/wrap"
)

// Judgement is everything there is to say about a configuration.
type Judgement struct {
	Good     bool      `json:"good"`
	Errors   Errors    `json:"errors"`
	Warnings []Problem `json:"warnings"`

	name string
	c    *Config // nil where it is not good
}

// Judge judges what reading a configuration came to. The name is the file's.
func Judge(name string, c *Config, err error) Judgement {
	if err != nil {
		return Judgement{Errors: problemsOf(name, err), Warnings: []Problem{}}
	}
	j := Judgement{Good: true, Errors: Errors{}, Warnings: append([]Problem{}, c.Warnings...), name: name, c: c}
	if err := c.Live(); err != nil {
		for _, p := range problemsOf(name, err) {
			p.Msg = "good for captures only: " + p.Msg
			j.Warnings = append(j.Warnings, p)
		}
	}
	return j
}

// problemsOf are the mistakes of an error; an error of no line is one by itself.
func problemsOf(name string, err error) Errors {
	var all Errors
	if errors.As(err, &all) {
		return all
	}
	return Errors{{File: name, Msg: err.Error()}}
}

// WriteText writes the Judgement for people.
func (j Judgement) WriteText(out io.Writer) error {
	if !j.Good {
		_, err := fmt.Fprintln(out, j.Errors)
		return err
	}
	for _, w := range j.Warnings {
		fmt.Fprintln(out, "warning:", w)
	}
	left := len(j.c.Unoffloaded())
	_, err := fmt.Fprintf(out, "%s: good. Profile %s, %s offloaded in %s, %d left to the transport.\n",
		j.name, j.c.Profile.Name, wrap.Count(len(j.c.SAs)-left, "SA"), wrap.Count(len(j.c.Bundles()), "bundle"), left)
	return err
}

// WriteJSON writes the Judgement as one object.
func (j Judgement) WriteJSON(out io.Writer) error {
	e := json.NewEncoder(out)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	return e.Encode(j)
}
