"""Calls the model, and calls it again if it fails. The config key `attempts` is how often at most."""

import hostler_plugin as hostler


class Executor(hostler.Executor):
    def submit(self, request, inputs, model):
        attempts = hostler.config_number("attempts", 2, 1, 10)
        for _ in range(attempts - 1):
            try:
                return model.call(inputs)
            except hostler.Err as error:
                if error.value.kind is hostler.ErrorKind.INVALID_INPUT:
                    raise
                hostler.count("again")
        return model.call(inputs)
