package cli

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"tapsec/internal/dissector"
)

func newDissector() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "dissector",
		Short: "Let Wireshark and tshark read the verdicts after frames",
		Long: `A dissector in Lua shows word, reason and records of each trailer, as fields to
filter by (tapsec.verdict, tapsec.reason, tapsec.spi, tapsec.seq ...), marks
failed frames, and dissects what the NIC opened.`,
		Example: `  tapsec dissector install
  tshark -r host0.pcap -Y 'tapsec.verdict == "FAILED"'
  tapsec dissector print > t.lua && tshark -X lua_script:t.lua -r host0.pcap`,
	}
	to := ""
	install := &cobra.Command{
		Use:   "install",
		Short: "Put the dissector where Wireshark looks for it",
		Long: `install writes tapsec.lua into the folder of your own Wireshark plugins, or into
the given one. It replaces an older version.`,
		Args: args(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			path, err := dissector.Install(to)
			if err != nil {
				return inputError(err)
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s\nWireshark reads it when it starts the next time.\n", path)
			return err
		},
	}
	install.Flags().StringVar(&to, "to", "", "this `FOLDER` instead of ~/.local/lib/wireshark/plugins")
	cmd.AddCommand(install, &cobra.Command{
		Use:   "print",
		Short: "Print the dissector",
		Args:  args(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := io.WriteString(cmd.OutOrStdout(), dissector.Lua())
			return err
		},
	})
	return cmd
}
