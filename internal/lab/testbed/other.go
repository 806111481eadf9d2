package testbed

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"tapsec/internal/lab/conformance"
)

// other is somebody else's NIC, between two interfaces.
type other struct {
	link
	ctx       context.Context
	unlinked  func() bool // keeps the end of ctx from closing the link
	configure string
	dir       string
	said      io.Writer
}

// openOther opens the other ends of a NIC's interfaces. To prepare the NIC for a setup, the
// shell runs configure with the setup's configuration file as argument; what that prints
// goes to said. Empty means that the NIC is ready. The end of ctx ends that command, and whatever waits.
func openOther(ctx context.Context, wire, host, configure string, wait time.Duration, said io.Writer) (_ *other, err error) {
	n := &other{ctx: ctx, configure: configure, said: said}
	if n.link, err = openLink(wire, host, wait); err != nil {
		return nil, err
	}
	if n.dir, err = os.MkdirTemp("", "tapsec-conformance"); err != nil {
		return nil, errors.Join(err, n.close())
	}
	n.unlinked = context.AfterFunc(ctx, func() { _ = n.close() }) // an error: it was closed
	return n, nil
}

// Ready runs the command that prepares the NIC.
func (n *other) Ready(l *conformance.Setup) error {
	if len(l.Delete) > 0 {
		return fmt.Errorf("%w: this NIC would have to be told to delete an SA", conformance.ErrNotRun)
	}
	if n.configure == "" {
		return nil
	}
	path := filepath.Join(n.dir, l.Name+".yaml")
	if err := writeSetup(path, l); err != nil {
		return err
	}
	cmd := exec.CommandContext(n.ctx, "/bin/sh", "-c", n.configure+` "$0"`, path)
	cmd.Stdout, cmd.Stderr = n.said, n.said
	cmd.Cancel = func() error { return cmd.Process.Signal(unix.SIGTERM) }
	cmd.WaitDelay = time.Second
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("--configure: %s %s: %w", n.configure, path, err)
	}
	return nil
}

// Close lets go of the interfaces.
func (n *other) Close() error {
	n.unlinked()
	return errors.Join(n.close(), os.RemoveAll(n.dir))
}

// WriteSetups writes the configuration of each setup to a file of its name in a folder.
func WriteSetups(dir string, setups []conformance.Setup) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for _, l := range setups {
		if err := writeSetup(filepath.Join(dir, l.Name+".yaml"), &l); err != nil {
			return err
		}
	}
	return nil
}

func writeSetup(path string, l *conformance.Setup) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	return errors.Join(l.WriteConfig(f), f.Close())
}
