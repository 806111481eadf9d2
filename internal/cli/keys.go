package cli

import (
	"bytes"
	"fmt"

	"github.com/spf13/cobra"

	"tapsec/configs"
	"tapsec/internal/files"
	"tapsec/keys"
)

// keysOptions are the flags of keys.
type keysOptions struct {
	in, out string
	to      keys.Format
	streams
}

func newKeys() *cobra.Command {
	o := keysOptions{}
	cmd := &cobra.Command{
		Use:   "keys [--to FORM] FILE",
		Short: "Convert SAs between ip xfrm, Wireshark's esp_sa and YAML",
		Long: `keys reads the SAs of FILE, or of standard input where it is -, and prints them
in another form: yaml, the configuration of tapsec; xfrm, commands that make
them in Linux; esp_sa, the table of that name in a Wireshark profile. It reads a
configuration, the output of ip xfrm state or ip xfrm monitor, a script with
commands ip xfrm state add, the output of setkey -D or commands for setkey, the
output of FortiGate's diagnose vpn tunnel list or of RouterOS's installed-sa
print detail, an esp_sa table, or the log of strongSwan's charon with chd = 4.
SAs come oldest first: of several that fit, the last one seals. For ip xfrm
monitor it says which SAs ended, with -t also when; replay heeds that.

What it prints are keys. -o makes a file that nobody else can read, and never
overwrites one. Standard error says what the form cannot hold, a line for each
kind; names are tapsec's own, and the other forms lose them.`,
		Example: `  ip xfrm state | tapsec keys - -o site.yaml
  tapsec keys --to esp_sa site.yaml >> ~/.config/wireshark/esp_sa
  tapsec keys --to xfrm site.yaml | ssh router sh`,
		Args: args(1),
		RunE: func(cmd *cobra.Command, given []string) error {
			o.in = given[0]
			o.streams = streamsOf(cmd)
			return convert(o)
		},
	}
	f := cmd.Flags()
	f.TextVar(&o.to, "to", keys.YAML, "`FORM` to print: yaml, xfrm or esp_sa")
	f.StringVarP(&o.out, "output", "o", "", "write to this new `FILE`, which only its owner can read; - is standard output")
	return cmd
}

// convert reads SAs and prints them in another form.
//
//  1. Read them, from whatever holds some.
//  2. Say of each what the form cannot hold.
//  3. Write the rest.
func convert(o keysOptions) error {
	c, err := configs.LoadKeys([]string{o.in}, o.stdin)
	if err != nil {
		return inputError(err)
	}
	c.Warn(o.stderr)
	fit, losses := keys.Fit(o.to, c.SAs)
	for _, loss := range losses {
		fmt.Fprintln(o.stderr, loss)
	}
	if len(c.SAs) == 0 {
		return inputError(fmt.Errorf("%s: none of its SAs can be taken over", files.Name(o.in)))
	}
	if len(fit) == 0 {
		return inputError(fmt.Errorf("%s: no SA that %s can hold", files.Name(o.in), o.to))
	}
	var text bytes.Buffer
	if err := keys.Write(&text, o.to, fit); err != nil {
		return err
	}
	return o.write(text.Bytes())
}

// write puts keys where they are wanted.
func (o *keysOptions) write(text []byte) error {
	if o.out == "" || o.out == "-" {
		files.WarnExposed(o.stderr, o.stdout)
		_, err := o.stdout.Write(text)
		return err
	}
	return inputError(files.WriteOwn(o.out, text))
}
