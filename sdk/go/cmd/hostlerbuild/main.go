// Command hostlerbuild compiles a plugin to a core module of WebAssembly, from which
// `hostler component` makes a component.
//
//	go run hostler/cmd/hostlerbuild -o build/core.wasm .
//
// It runs `go build` for GOOS=wasip1 and GOARCH=wasm, and adds the function that the host asks for
// memory with: see realloc.go. Other settings of the Go command, such as GOFLAGS, are those of the
// environment.
package main

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
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
	module, err := os.ReadFile(linked)
	if err != nil {
		return err
	}
	if err := check(module); err != nil {
		return err
	}
	module, err = withRealloc(module)
	if err != nil {
		return err
	}
	// In one step, so that a build that is interrupted leaves no half of a module.
	if err := os.WriteFile(linked, module, 0o644); err != nil {
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

// check returns an error if a module has no role or several.
func check(module []byte) error {
	sections, err := parse(module)
	if err != nil {
		return err
	}
	exported, err := find(sections, exportSection)
	if err != nil {
		return err
	}
	var roles []string
	for _, role := range []string{"transformer", "model", "executor"} {
		for _, name := range exports(exported.content) {
			if strings.HasPrefix(name, "hostler:plugin/"+role+"@") {
				roles = append(roles, role)
				break
			}
		}
	}
	switch len(roles) {
	case 0:
		return fmt.Errorf("the program exports no role: call model.Export, transformer.Export or executor.Export in init")
	case 1:
		return nil
	}
	return fmt.Errorf("the program exports the roles %s: a component has one; make a program for each", strings.Join(roles, " and "))
}
