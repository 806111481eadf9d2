package cli

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"tapsec/configs"
	"tapsec/internal/console"
	"tapsec/internal/exit"
	"tapsec/internal/files"
	"tapsec/internal/wrap"
)

func newValidate() *cobra.Command {
	schema, asJSON := false, false
	cmd := &cobra.Command{
		Use:   "validate [--json] FILE | --schema",
		Short: "Check a configuration and name every mistake",
		Long: `validate reads a configuration, or standard input if FILE is -, and names every
mistake with line, column and field, and what is unwise. It shows no key.

With --json it prints one object instead: good, errors and warnings, each of
these with file, line, col, field, text (the line, keys masked) and msg. The
exit code is 2 if there are errors, as without --json.

--schema prints the JSON schema of a configuration, for editors that complete
and check. For the YAML language server, the file's first line has to be
# yaml-language-server: $schema=tapsec.schema.json`,
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
			return validate(streamsOf(cmd), given[0], asJSON)
		},
	}
	cmd.Flags().BoolVar(&schema, "schema", false, "print the JSON schema of configurations, and check nothing")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one JSON object and nothing else")
	return cmd
}

func validate(o streams, path string, asJSON bool) error {
	c, err := configs.LoadInput(path, o.stdin)
	j := configs.Judge(files.Name(path), c, err)
	switch {
	case !asJSON && err != nil:
		return inputError(err)
	case !asJSON:
		var text strings.Builder
		j.WriteText(&text) // to memory
		_, err = fmt.Fprint(o.stdout, wrap.Message(text.String(), console.IsTerminal(o.stdout)))
		return err
	}
	if printed := j.WriteJSON(o.stdout); printed != nil || err == nil {
		return printed
	}
	return exit.Mark(exit.Input, errSaid)
}
