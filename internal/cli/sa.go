package cli

import (
	"cmp"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"tapsec/configs"
	"tapsec/control"
	"tapsec/internal/console"
	"tapsec/internal/files"
	"tapsec/internal/wrap"
)

func newSA() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "sa",
		Short: "Add, delete and list the SAs of a running appliance",
		Long: `sa manages the SAs of a tapsec that runs with --control PATH. A request adds all
its SAs or none, while frames flow. Added SAs stay until they are deleted or
that program ends; a reload undoes what was done to the SAs of its file.

Exit codes: 2 the request is wrong, 5 the NIC's table is full, 6 there is no
such SA, 7 there is one of that name or identity, 8 it is beyond the NIC's
profile.`,
	}
	cmd.AddCommand(newSAAdd(), newSADelete(), newSAUpdate(), newSAList(), newSAShow(), newSAFlush(), newSAImport(), newSAExport())
	return cmd
}

// asked is a command that asks a running appliance.
type asked struct {
	socket string
	flag   string // that names the socket; empty: control
}

// does makes a command that runs f with a client.
func (o *asked) does(cmd *cobra.Command, f func(c *control.Client, cmd *cobra.Command, given []string) error) *cobra.Command {
	cmd.Flags().StringVar(&o.socket, cmp.Or(o.flag, "control"), "/run/tapsec.sock", "control socket of the appliance at this `PATH`")
	cmd.RunE = func(cmd *cobra.Command, given []string) error {
		c, err := control.Dial(o.socket)
		if err != nil {
			return err
		}
		return f(c, cmd, given)
	}
	return cmd
}

// shows makes a command that prints what f returns.
func (o *asked) shows(cmd *cobra.Command, f func(c *control.Client, cmd *cobra.Command, given []string) (document, error)) *cobra.Command {
	asJSON := false
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON and nothing else")
	return o.does(cmd, func(c *control.Client, cmd *cobra.Command, given []string) error {
		answer, err := f(c, cmd, given)
		if err != nil {
			return err
		}
		return show(cmd.OutOrStdout(), asJSON, answer)
	})
}

func newSAAdd() *cobra.Command {
	o := asked{}
	return o.shows(&cobra.Command{
		Use:   "add FILE",
		Short: "Add SAs, all of FILE or none",
		Long: `add reads SAs as a configuration has them from FILE, or from standard input
if FILE is -: one entry, a list of them, or a document with sas. An AH entry
may name the ESP entry beneath it (bundle); both are then one in the NIC. Key
files are read here. An SA that exists already is an error: see import.`,
		Example: `  tapsec sa add - <<'EOF'
  {name: site, spi: 0x1001, dst: 192.0.2.1, protocol: esp, mode: tunnel,
   suite: aes128gcm16, encryption_key: file:site.key}
  EOF`,
		Args: args(1),
	}, func(c *control.Client, cmd *cobra.Command, given []string) (document, error) {
		text, err := files.Read(given[0], cmd.InOrStdin())
		if err != nil {
			return nil, inputError(err)
		}
		config, err := configs.ParseSAs(files.Name(given[0]), text)
		if err != nil {
			return nil, inputError(err)
		}
		return addSAs(c, cmd, config)
	})
}

// addSAs adds the SAs of a configuration, and prints its warnings.
func addSAs(c *control.Client, cmd *cobra.Command, config *configs.Config) (document, error) {
	config.Warn(cmd.ErrOrStderr())
	if len(config.SAs) == 0 {
		return control.Added{SAs: []control.SA{}}, nil
	}
	added, err := c.Add(config.SAs)
	return control.Added{SAs: added}, err
}

func newSAImport() *cobra.Command {
	o := asked{}
	return o.shows(&cobra.Command{
		Use:   "import FILE",
		Short: "Add the SAs of another tool's text that are missing",
		Long: `import reads whatever tapsec keys reads, from FILE or from standard input
if FILE is -, and adds the SAs that the appliance does not have. SAs that have
ended according to the text are left out. What the NIC cannot hold stays with
the transport.`,
		Example: `  ip xfrm state | tapsec sa import -`,
		Args:    args(1),
	}, func(c *control.Client, cmd *cobra.Command, given []string) (document, error) {
		config, err := configs.LoadKeys(given, cmd.InOrStdin())
		if err != nil {
			return nil, inputError(err)
		}
		config.TakeOver()
		if config.SAs, err = c.Missing(config.SAs); err != nil {
			return nil, err
		}
		return addSAs(c, cmd, config)
	})
}

func newSADelete() *cobra.Command {
	o, nicOnly := asked{}, false
	cmd := o.does(&cobra.Command{
		Use:   "delete NAME",
		Short: "Delete an SA, and the other half of its bundle",
		Long: `delete takes an SA out of force. Frames that were looked up before are finished
on it. With --nic-only a transport in the same process keeps it and continues in
software, as after a SaDeleteReq.`,
		Args: args(1),
	}, func(c *control.Client, _ *cobra.Command, given []string) error {
		return c.Delete(control.Ref{Name: given[0]}, nicOnly)
	})
	cmd.Flags().BoolVar(&nicOnly, "nic-only", false, "delete the offloaded SA; the transport keeps its own")
	cmd.ValidArgsFunction = o.completeSA
	return cmd
}

func newSAUpdate() *cobra.Command {
	o, high := asked{}, uint32(0)
	cmd := o.does(&cobra.Command{
		Use:   "update NAME --high NUMBER",
		Short: "Tell the NIC the high half of an SA's sequence numbers",
		Args:  args(1),
	}, func(c *control.Client, cmd *cobra.Command, given []string) error {
		if !cmd.Flags().Changed("high") {
			return inputError(errors.New("give the high half of the sequence numbers with --high"))
		}
		return c.Update(control.Ref{Name: given[0]}, high)
	})
	cmd.Flags().Uint32Var(&high, "high", 0, "upper 32 bits of the extended sequence `NUMBER`")
	cmd.ValidArgsFunction = o.completeSA
	return cmd
}

func newSAList() *cobra.Command {
	o, asJSON := asked{}, false
	cmd := o.does(&cobra.Command{
		Use:   "list",
		Short: "List the SAs in force, oldest first",
		Args:  args(0),
	}, func(c *control.Client, cmd *cobra.Command, _ []string) error {
		if !asJSON {
			return control.WriteList(cmd.OutOrStdout(), c.All())
		}
		page := control.Page{SAs: []control.SA{}}
		for s, err := range c.All() {
			if err != nil {
				return err
			}
			page.SAs = append(page.SAs, s)
		}
		return show(cmd.OutOrStdout(), true, page)
	})
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON and nothing else")
	return cmd
}

func newSAShow() *cobra.Command {
	o := asked{}
	cmd := o.shows(&cobra.Command{
		Use:   "show NAME",
		Short: "Show one SA; keys are never shown",
		Args:  args(1),
	}, func(c *control.Client, _ *cobra.Command, given []string) (document, error) {
		return c.Show(given[0])
	})
	cmd.ValidArgsFunction = o.completeSA
	return cmd
}

func newSAFlush() *cobra.Command {
	o := asked{}
	return o.does(&cobra.Command{
		Use:   "flush",
		Short: "Delete all SAs",
		Args:  args(0),
	}, func(c *control.Client, cmd *cobra.Command, _ []string) error {
		n, err := c.Flush()
		if err == nil {
			fmt.Fprintf(cmd.OutOrStdout(), "%s deleted\n", wrap.Count(n, "SA"))
		}
		return err
	})
}

func newSAExport() *cobra.Command {
	o, withKeys, save := asked{}, false, ""
	cmd := o.does(&cobra.Command{
		Use:   "export",
		Short: "Print the SAs in force as a configuration",
		Long: `export prints the SAs in force, with the numbers they have reached, as a
configuration in JSON. --with-keys shows the keys, but only on a terminal;
--save writes them to a new file that nobody else can read. Once this program
has ended, one that starts with that file continues where it was.`,
		Args: args(0),
	}, func(c *control.Client, cmd *cobra.Command, _ []string) error {
		if withKeys && save == "" && !console.IsTerminal(cmd.OutOrStdout()) {
			return inputError(errors.New("--with-keys shows keys on a terminal only; --save FILE makes a file that only its owner can read"))
		}
		if save == "" {
			return c.WriteExport(cmd.OutOrStdout(), withKeys)
		}
		var asked error
		err := files.MakeOwn(save, func(w io.Writer) error {
			asked = c.WriteExport(w, true)
			return asked
		})
		if asked != nil {
			return asked
		}
		return inputError(err)
	})
	cmd.Flags().BoolVar(&withKeys, "with-keys", false, "show the keys, on a terminal")
	cmd.Flags().StringVar(&save, "save", "", "write keys and all to this new `FILE`")
	return cmd
}
