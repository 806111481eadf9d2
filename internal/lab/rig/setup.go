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
	if err := ownNames(); err != nil {
		return err
	}
	return netns.Up("lo")
}

// ownNames mounts an empty /run/netns. If the machine has no such directory, none is made in its file system:
// /run is replaced by one that has it, and everything else under its old name.
func ownNames() error {
	if _, err := os.Stat(netns.Names); err == nil {
		return mountEmpty(netns.Names)
	}
	if err := replace("/run"); err != nil {
		return err
	}
	return os.Mkdir(netns.Names, 0o755)
}

// replace mounts an empty directory over dir, with links to everything that dir held. It needs Linux 5.2,
// since an ordinary bind mount would find the new directory instead of the one beneath.
func replace(dir string) error {
	const beneath = ".machine"
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
