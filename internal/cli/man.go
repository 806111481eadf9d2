package cli

import (
	"os"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
)

func newMan() *cobra.Command {
	var markdown bool
	cmd := &cobra.Command{
		Use:   "man DIR",
		Short: "Write the man pages into a folder",
		Long: `man writes a page for each command. To read one: man -l DIR/tapsec-run.1. To
install them for everyone, give /usr/local/share/man/man1 as DIR.`,
		Args:              args(1),
		RunE:              func(cmd *cobra.Command, given []string) error { return man(cmd.Root(), given[0], markdown) },
		ValidArgsFunction: first(byValue["FOLDER"]),
	}
	cmd.Flags().BoolVar(&markdown, "markdown", false, "write them in Markdown")
	return cmd
}

func man(root *cobra.Command, dir string, markdown bool) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return inputError(err)
	}
	root.DisableAutoGenTag = true
	if markdown {
		return doc.GenMarkdownTree(root, dir)
	}
	return doc.GenManTree(root, &doc.GenManHeader{Section: "1", Source: "tapsec", Manual: "tapsec"}, dir)
}
