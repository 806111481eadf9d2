// Package reasons is the pages of this folder: each reason, its cause, how to confirm it, and
// what to do.
package reasons

import (
	"embed"
	"strings"
)

//go:embed *.md
var files embed.FS

// Page is what is written of a reason, by its name after its owner's: nic/no-sa. It is empty
// where nothing is.
func Page(name string) string {
	owner, _, _ := strings.Cut(name, "/")
	text, err := files.ReadFile(owner + ".md")
	if err != nil {
		return ""
	}
	_, page, found := strings.Cut(string(text), "\n## "+name+"\n\n")
	if !found {
		return ""
	}
	page, _, _ = strings.Cut(page, "\n## ")
	return strings.TrimSpace(page) + "\n"
}
