// Package optionalmodel exports a plugin in the role model, with inputs that a request may omit.
package optionalmodel

import (
	"hostler"
	"hostler/model"
)

var plugin hostler.OptionalModel

// Export exports a model. Call it once, in init.
func Export(optional hostler.OptionalModel) {
	model.Export(optional)
	plugin = optional
}
