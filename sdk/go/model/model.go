// Package model exports a plugin in the role model.
package model

import "hostler"

var plugin hostler.Model

// Export exports a model. Call it once, in init.
func Export(model hostler.Model) {
	if plugin != nil {
		panic("model.Export was called twice; a component has one model")
	}
	plugin = model
}
