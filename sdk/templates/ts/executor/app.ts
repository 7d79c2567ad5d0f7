// Calls the model, and calls it again if it fails. The config key `attempts` is how often at most.

import * as hostler from "hostler-plugin";
import * as calls from "hostler-plugin/executor";

export const executor = calls.executor({
  submit(request: hostler.Request, inputs: hostler.Tensor[], model: calls.Callable) {
    const attempts = Number(hostler.config("attempts") ?? 2);
    for (let attempt = 1; attempt < attempts; attempt++) {
      try {
        return model.call(inputs);
      } catch (error) {
        if (hostler.errorOf(error)?.kind === "invalid-input") throw error;
        hostler.count("again");
      }
    }
    return model.call(inputs);
  },
});
