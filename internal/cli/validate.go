package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"tapsec/configs"
)

// validateOptions are the flags of validate.
type validateOptions struct {
	in     string
	json   bool
	stdin  io.Reader
	stdout io.Writer
}

func newValidate() *cobra.Command {
	o, schema := validateOptions{}, false
	cmd := &cobra.Command{
		Use:   "validate [--json] FILE | --schema",
		Short: "Check a configuration and name every mistake",
		Long: `validate reads a configuration, or standard input where FILE is -, and names
every mistake with line, column and field, and what is unwise. It shows no key.

With --json it prints one object instead: good, errors and warnings, each of
these with file, line, col, field, text (the line, keys masked) and msg. The
exit code is 2 where there are errors, as without.

--schema prints the JSON schema of a configuration, for editors that complete
and check. For the YAML language server, put a first line into the file: #
yaml-language-server: $schema=tapsec.schema.json`,
		Args: func(cmd *cobra.Command, given []string) error {
			if schema {
				return args(0)(cmd, given)
			}
			return args(1)(cmd, given)
		},
		RunE: func(cmd *cobra.Command, given []string) error {
			if schema {
				text, err := configs.Schema()
				if err == nil {
					_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s\n", text)
				}
				return err
			}
			o.in, o.stdin, o.stdout = given[0], cmd.InOrStdin(), cmd.OutOrStdout()
			return validate(o)
		},
	}
	cmd.Flags().BoolVar(&schema, "schema", false, "print the JSON schema of configurations, and check nothing")
	cmd.Flags().BoolVar(&o.json, "json", false, "print one JSON object and nothing else")
	return cmd
}

// judgement is what --json prints.
type judgement struct {
	Good     bool              `json:"good"`
	Errors   configs.Errors    `json:"errors"`
	Warnings []configs.Problem `json:"warnings"`
}

func validate(o validateOptions) error {
	c, err := o.load()
	if err != nil {
		if o.json {
			return o.print(judgement{Errors: problems(o.in, err)}, err)
		}
		return inputError(err)
	}
	warnings := c.Warnings
	if err := c.Live(); err != nil {
		for _, p := range problems(o.in, err) {
			p.Msg = "good for captures only: " + p.Msg
			warnings = append(warnings, p)
		}
	}
	if o.json {
		return o.print(judgement{Good: true, Warnings: warnings}, nil)
	}
	for _, w := range warnings {
		fmt.Fprintln(o.stdout, "warning:", w)
	}
	fmt.Fprintf(o.stdout, "%s: good. Profile %s, %s offloaded in %s, %d left to the transport.\n",
		inputName(o.in), c.Profile.Name, count(len(c.SAs)-len(c.Unoffloaded()), "SA"), count(len(c.Bundles()), "bundle"), len(c.Unoffloaded()))
	return nil
}

func (o *validateOptions) load() (*configs.Config, error) {
	if o.in != "-" {
		return configs.Load(o.in)
	}
	text, err := io.ReadAll(o.stdin)
	if err != nil {
		return nil, err
	}
	return configs.Read(inputName(o.in), text)
}

// problems are the mistakes of an error; one that is none of a line is one by itself.
func problems(name string, err error) configs.Errors {
	var all configs.Errors
	if errors.As(err, &all) {
		return all
	}
	return configs.Errors{{File: inputName(name), Msg: err.Error()}}
}

// print prints the object. Its lists are never null.
func (o *validateOptions) print(j judgement, err error) error {
	if j.Errors == nil {
		j.Errors = configs.Errors{}
	}
	if j.Warnings == nil {
		j.Warnings = []configs.Problem{}
	}
	e := json.NewEncoder(o.stdout)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	if printed := e.Encode(j); printed != nil {
		return printed
	}
	if err != nil {
		return exitError{exitInput, errSaid}
	}
	return nil
}

// count is a number of things.
func count(n int, thing string) string {
	if n != 1 {
		thing += "s"
	}
	return fmt.Sprintf("%d %s", n, thing)
}
