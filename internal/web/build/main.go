// Command build makes the page that judges captures in a browser: one HTML file with the
// program in it, which needs no server.
package main

import (
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"tapsec/internal/page"
)

func main() {
	out := flag.String("o", "dist/web/index.html", "the page is written to this `FILE`")
	source := flag.String("source", "internal/web", "`FOLDER` with the page and the program")
	flag.Parse()
	if err := build(*source, *out); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func build(source, out string) error {
	text, err := os.ReadFile(filepath.Join(source, "page.html"))
	if err != nil {
		return err
	}
	support, err := wasmExec()
	if err != nil {
		return err
	}
	program, err := compile(source)
	if err != nil {
		return err
	}
	// Not a template: none of the parts may be escaped.
	made := string(text)
	for _, part := range []struct{ name, text string }{
		{"{{.Style}}", string(page.Style())}, {"{{.WasmExec}}", support}, {"{{.Wasm}}", program},
	} {
		made = strings.Replace(made, part.name, part.text, 1)
	}
	if err := os.MkdirAll(filepath.Dir(out), 0o755); err != nil {
		return err
	}
	return os.WriteFile(out, []byte(made), 0o644)
}

// wasmExec is Go's own part of the page, of the compiler that makes the program.
func wasmExec() (string, error) {
	root, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		return "", err
	}
	text, err := os.ReadFile(filepath.Join(strings.TrimSpace(string(root)), "lib/wasm/wasm_exec.js"))
	return string(text), err
}

// compile is the program, compressed and in base64.
func compile(source string) (string, error) {
	dir, err := os.MkdirTemp("", "tapsec-web")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "tapsec.wasm")
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", path, "./"+source)
	cmd.Env = append(os.Environ(), "GOOS=js", "GOARCH=wasm")
	if said, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("%w: %s", err, said)
	}
	program, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	var packed bytes.Buffer
	z, err := gzip.NewWriterLevel(&packed, gzip.BestCompression)
	if err == nil {
		_, err = z.Write(program)
	}
	if err == nil {
		err = z.Close()
	}
	return base64.StdEncoding.EncodeToString(packed.Bytes()), err
}
