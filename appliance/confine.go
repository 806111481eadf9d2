//go:build linux

package appliance

import (
	"context"
	"log/slog"
	"slices"

	"tapsec/internal/confine"
)

// confine leaves the process only what it still needs: to read the configuration and
// key files again, save the state, ask the NIC's control socket, and remove its own.
// What the kernel does not support is logged, and frames move all the same.
func (a *Appliance) confine() {
	defer close(a.opened)
	if !a.options.Confine {
		return
	}
	plan := confine.Plan{Read: a.config.Files, NetAdmin: a.mirror != nil}
	if a.options.State != "" && a.options.Transport {
		plan.Replace = append(plan.Replace, a.options.State)
	}
	if a.server != nil {
		plan.Remove = append(plan.Remove, a.options.Control)
	}
	if a.options.NIC != "" {
		plan.Dial = append(plan.Dial, a.options.NIC)
	}
	if err := confine.Apply(plan); err != nil {
		a.log.Warn("not confined in every respect", "err", err)
	}
	left, err := confine.Read()
	if err != nil {
		a.log.Warn("cannot read what is left to the process", "err", err)
		return
	}
	level := slog.LevelInfo
	if !left.Files || left.Seccomp != "filter" || left.Dumpable {
		level = slog.LevelWarn
	}
	a.log.Log(context.Background(), level, "confined", "capabilities", left.Capabilities, "no_new_privs", left.NoNewPrivs, "files", left.Files,
		"landlock_abi", left.Landlock, "seccomp", left.Seccomp, "dumpable", left.Dumpable)
}

// processStatus is the document "status".
type processStatus struct {
	Confinement *confine.State `json:"confinement"`  // null where it cannot be read
	KernelDrops []KernelDrops  `json:"kernel_drops"` // interfaces whose drops cannot be read are missing
}

func (a *Appliance) status() processStatus {
	s := processStatus{KernelDrops: slices.DeleteFunc(a.ports.drops(), func(d KernelDrops) bool { return d.Err != nil })}
	if left, err := confine.Read(); err == nil {
		s.Confinement = &left
	}
	return s
}
