// Package executor exports a plugin in the role executor.
package executor

import "hostler"

var plugin hostler.Executor

// Export exports an executor. Call it once, in init.
func Export(executor hostler.Executor) {
	if plugin != nil {
		panic("executor.Export was called twice; a component has one executor")
	}
	plugin = executor
}
