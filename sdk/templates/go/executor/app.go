// Calls the model, and calls it again if it fails. The config key `attempts` is how often at most.
package main

import (
	"hostler"
	"hostler/executor"
)

// Retry implements hostler.Executor.
type Retry struct{}

func init() { executor.Export(Retry{}) }

// A component has no main function: the host calls the functions of the role.
func main() {}

func (Retry) Submit(request *hostler.Request, inputs []*hostler.Tensor, model *hostler.Callable) ([]*hostler.Tensor, error) {
	attempts, err := hostler.Config.Int("attempts", 2, 1, 10)
	if err != nil {
		return nil, err
	}
	for ; attempts > 1; attempts-- {
		outputs, err := model.Call(inputs)
		if err == nil || hostler.KindOf(err) == hostler.InvalidInput {
			return outputs, err
		}
		hostler.Metrics.Count("again", 1)
	}
	return model.Call(inputs)
}
