package cli

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/spf13/cobra"

	"tapsec/configs"
	"tapsec/keys"
	"tapsec/sa"
)

// keysOptions are the flags of keys.
type keysOptions struct {
	in, out        string
	to             keys.Format
	stdin          io.Reader
	stdout, stderr io.Writer
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
commands ip xfrm state add, the output of setkey -D or of FortiGate's diagnose
vpn tunnel list, an esp_sa table, or the log of strongSwan's charon, where that
has chd = 4. Oldest first: of several SAs that fit, the last one seals. Of
ip xfrm monitor it says which SAs ended, with -t also when; replay heeds that.

What it prints are keys. -o makes a file that nobody else can read, and never
overwrites one. What the form cannot hold of an SA is said on standard error, a
kind to a line; names are tapsec's own and stay behind in the other forms.`,
		Example: `  ip xfrm state | tapsec keys - -o site.yaml
  tapsec keys --to esp_sa site.yaml >> ~/.config/wireshark/esp_sa
  tapsec keys --to xfrm site.yaml | ssh router sh`,
		Args: args(1),
		RunE: func(cmd *cobra.Command, given []string) error {
			o.in = given[0]
			o.stdin, o.stdout, o.stderr = cmd.InOrStdin(), cmd.OutOrStdout(), cmd.ErrOrStderr()
			return convert(o)
		},
	}
	f := cmd.Flags()
	f.TextVar(&o.to, "to", keys.YAML, "`FORM` to print: yaml, xfrm or esp_sa")
	f.StringVarP(&o.out, "output", "o", "", "write to this new `FILE`, which only its owner can read")
	_ = cmd.RegisterFlagCompletionFunc("to", cobra.FixedCompletions([]cobra.Completion{"yaml", "xfrm", "esp_sa"}, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

// convert reads SAs and prints them in another form.
//
//  1. Read them, from whatever holds some.
//  2. Say of each what the form cannot hold.
//  3. Write the rest.
func convert(o keysOptions) error {
	c, err := readKeys([]string{o.in}, o.stdin)
	if err != nil {
		return inputError(err)
	}
	for _, w := range c.Warnings {
		fmt.Fprintln(o.stderr, "warning:", w)
	}
	fit := o.lost(c.SAs)
	if len(c.SAs) == 0 {
		return inputError(fmt.Errorf("%s: none of its SAs can be taken over", inputName(o.in)))
	}
	if len(fit) == 0 {
		return inputError(fmt.Errorf("%s: no SA that %s can hold", inputName(o.in), o.to))
	}
	var text bytes.Buffer
	if err := keys.Write(&text, o.to, fit); err != nil {
		return err
	}
	return o.write(text.Bytes())
}

// lost says what the form cannot hold, a line for each kind, and gives the SAs that
// it can.
func (o *keysOptions) lost(sas []*sa.SA) (fit []*sa.SA) {
	var kinds []string
	names := map[string][]string{}
	say := func(kind, name string) {
		if names[kind] == nil {
			kinds = append(kinds, kind)
		}
		names[kind] = append(names[kind], name)
	}
	for _, s := range sas {
		fields, err := keys.Lost(o.to, s)
		if err != nil {
			say(fmt.Sprintf("left out: %v", err), s.Name)
			continue
		}
		for _, field := range fields {
			say(fmt.Sprintf("%s cannot hold %s", o.to, field), s.Name)
		}
		if o.to == keys.ESPSA && keys.NeedsWireshark42(s) {
			say("needs Wireshark 4.2 or later", s.Name)
		}
		fit = append(fit, s)
	}
	for _, kind := range kinds {
		fmt.Fprintf(o.stderr, "%s: %s\n", kind, keys.Names(names[kind]))
	}
	return fit
}

// readKeys reads the SAs of files, whatever holds some; - is standard input.
func readKeys(paths []string, stdin io.Reader) (*configs.Config, error) {
	c, err := readKeyFile(paths[0], stdin)
	for _, path := range paths[1:] {
		if err != nil {
			return nil, err
		}
		var more *configs.Config
		if more, err = readKeyFile(path, stdin); err == nil {
			err = c.Take(more)
		}
	}
	return c, err
}

// readInput reads all of a file, or of standard input.
func readInput(path string, stdin io.Reader) ([]byte, error) {
	in, err := openInput(path, stdin)
	if err != nil {
		return nil, err
	}
	defer in.Close()
	text, err := io.ReadAll(in)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", inputName(path), err)
	}
	return text, nil
}

func readKeyFile(path string, stdin io.Reader) (*configs.Config, error) {
	text, err := readInput(path, stdin)
	if err != nil {
		return nil, err
	}
	c, err := configs.ParseKeys(inputName(path), text)
	if c != nil {
		c.Files = append(c.Files, path)
	}
	return c, err
}

// write puts keys where they are wanted: a new file is its owner's alone, and
// of a redirection to a file that others can read it is said.
func (o *keysOptions) write(text []byte) error {
	if o.out == "" {
		warnOpen(o.stderr, o.stdout)
		_, err := o.stdout.Write(text)
		return err
	}
	file, err := os.OpenFile(o.out, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return inputError(fmt.Errorf("%s is there already; remove it, or name another file", o.out))
	}
	if err != nil {
		return inputError(err)
	}
	_, err = file.Write(text)
	return errors.Join(err, file.Close())
}

// warnOpen says it where keys are about to go to a file that others can read.
func warnOpen(stderr, to io.Writer) {
	if kept, ok := to.(keepOpen); ok {
		to = kept.Writer
	}
	out, ok := unwrap(to).(*os.File)
	if !ok {
		return
	}
	if info, err := out.Stat(); err == nil && info.Mode().IsRegular() && info.Mode().Perm()&0o077 != 0 {
		fmt.Fprintf(stderr, "warning: others can read the file that these keys go to (mode %04o); -o makes a new one that they cannot\n", info.Mode().Perm())
	}
}

// unwrap is the file behind what Main counts errors with.
func unwrap(w io.Writer) io.Writer {
	if o, ok := w.(*output); ok {
		return o.Writer
	}
	return w
}
