// Command hostlerbuild compiles a plugin to a core module of WebAssembly, from which
// `hostler component` makes a component.
//
//	go tool hostlerbuild -o build/core.wasm .
//
// It runs `go build` for GOOS=wasip1 and GOARCH=wasm, and adds the function that the host asks for
// memory with: see the package internal/module. Other settings of the Go command, such as GOFLAGS, are those of the
// environment.
package main

import (
	"flag"
	"fmt"
	"hostler/internal/module"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
)

func main() {
	output := flag.String("o", "build/core.wasm", "the core module to write")
	debug := flag.Bool("debug", false, "keep the debug information, which makes the module larger")
	flag.Usage = func() {
		fmt.Fprintln(flag.CommandLine.Output(), "usage: hostlerbuild [-o FILE] [-debug] [PACKAGE]")
		flag.PrintDefaults()
	}
	flag.Parse()
	source := "."
	switch flag.NArg() {
	case 0:
	case 1:
		source = flag.Arg(0)
	default:
		flag.Usage()
		os.Exit(2)
	}
	if err := build(source, *output, *debug); err != nil {
		fmt.Fprintln(os.Stderr, "hostlerbuild:", err)
		os.Exit(1)
	}
}

// build compiles a package to a core module.
func build(source, output string, debug bool) error {
	// The names of the sections and variables of debug information are not part of the answer to a
	// panic: Go keeps files and lines in the data.
	flags := "-checklinkname=0"
	if !debug {
		flags += " -s -w"
	}
	if err := os.MkdirAll(filepath.Dir(output), 0o755); err != nil {
		return err
	}
	linked := output + ".linked"
	command := exec.Command(goCommand(), "build", "-buildmode=c-shared", "-trimpath", "-ldflags="+flags, "-o", linked, source)
	command.Env = append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm", "CGO_ENABLED=0")
	command.Stdout, command.Stderr = os.Stdout, os.Stderr
	if err := command.Run(); err != nil {
		return fmt.Errorf("the compiler of Go failed: %w", err)
	}
	defer os.Remove(linked)
	linkedModule, err := os.ReadFile(linked)
	if err != nil {
		return err
	}
	if err := module.CheckRole(linkedModule); err != nil {
		return err
	}
	finished, err := module.AddRealloc(linkedModule)
	if err != nil {
		return err
	}
	// In one step, so that a build that is interrupted leaves no half of a module.
	if err := os.WriteFile(linked, finished, 0o644); err != nil {
		return err
	}
	return os.Rename(linked, output)
}

// goCommand returns the Go command that runs this program, or else the one in the path.
func goCommand() string {
	name := "go"
	if runtime.GOOS == "windows" {
		name += ".exe"
	}
	if root := os.Getenv("GOROOT"); root != "" {
		if path := filepath.Join(root, "bin", name); exists(path) {
			return path
		}
	}
	return name
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
