package program

import (
	"os/exec"
	"testing"
)

// What a program says just before it ends is heard.
func TestLastWord(t *testing.T) {
	p := Launch(t, nil, exec.Command("echo", "over"))
	p.Await("over", 1)
	p.Join()
}
