package module

import (
	"errors"
	"fmt"
	"strings"
)

// CheckRole returns an error if a module has no role or several.
func CheckRole(module []byte) error {
	sections, err := parse(module)
	if err != nil {
		return err
	}
	exported, err := find(sections, exportSection)
	if err != nil {
		return err
	}
	names := exports(exported.content)
	var roles []string
	for _, role := range []string{"transformer", "model", "executor"} {
		for _, name := range names {
			if strings.HasPrefix(name, "hostler:plugin/"+role+"@") {
				roles = append(roles, role)
				break
			}
		}
	}
	switch len(roles) {
	case 0:
		return errors.New("the program exports no role: call model.Export, transformer.Export or executor.Export in init")
	case 1:
		return nil
	}
	return fmt.Errorf("the program exports the roles %s: a component has one; make a program for each", strings.Join(roles, " and "))
}
