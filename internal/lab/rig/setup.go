package rig

import (
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"tapsec/internal/netns"
)

// Setup prepares a fresh rig, once: what is mounted here stays here, /run/netns is empty and the rig's own,
// lo is up. What the machine unmounts is unmounted here too, so that a standing rig keeps no disk busy.
func Setup() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SLAVE, ""); err != nil {
		return fmt.Errorf("cut mounts off from the machine's: %w", err)
	}
	if err := OwnDir(netns.Names); err != nil {
		return err
	}
	return netns.Up("lo")
}

// OwnDir mounts an empty directory of the rig's own. If the machine has no such directory, none is made in its file
// system: the one above is replaced by one that has it, and everything else under its old name.
func OwnDir(dir string) error {
	if _, err := os.Stat(dir); err == nil {
		return mountEmpty(dir)
	}
	above := filepath.Dir(dir)
	if _, err := os.Stat(filepath.Join(above, beneath)); err != nil { // not yet replaced
		if err := replace(above); err != nil {
			return err
		}
	}
	return os.Mkdir(dir, 0o755)
}

// beneath is what a directory that was replaced has under its old name.
const beneath = ".machine"

// replace mounts an empty directory over dir, with links to everything that dir held. It needs Linux 5.2,
// since an ordinary bind mount would find the new directory instead of the one beneath.
func replace(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	old, err := unix.OpenTree(unix.AT_FDCWD, dir, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_RECURSIVE)
	if err != nil {
		return fmt.Errorf("keep what is in %s: %w", dir, err)
	}
	defer unix.Close(old)
	if err := mountEmpty(dir); err != nil {
		return err
	}
	kept := filepath.Join(dir, beneath)
	if err := os.Mkdir(kept, 0o755); err != nil {
		return err
	}
	if err := unix.MoveMount(old, "", unix.AT_FDCWD, kept, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return fmt.Errorf("keep what was in %s: %w", dir, err)
	}
	for _, e := range entries {
		if err := os.Symlink(filepath.Join(beneath, e.Name()), filepath.Join(dir, e.Name())); err != nil {
			return err
		}
	}
	return nil
}

func mountEmpty(dir string) error {
	if err := unix.Mount("tapsec", dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=0755"); err != nil {
		return fmt.Errorf("mount an empty %s: %w", dir, err)
	}
	return nil
}
