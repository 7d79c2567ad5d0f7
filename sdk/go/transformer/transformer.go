// Package transformer exports a plugin in the role transformer.
package transformer

import "hostler"

var plugin hostler.Transformer

// Export exports a transformer. Call it once, in init.
func Export(transformer hostler.Transformer) {
	if plugin != nil {
		panic("transformer.Export was called twice; a component has one transformer")
	}
	plugin = transformer
}
