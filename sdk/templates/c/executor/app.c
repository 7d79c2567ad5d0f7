/* Calls the model, and calls it again if it fails. The config key `attempts` is how often at most. */
#include "hostler.h"

bool plugin_submit(hostler_request *request, hostler_tensors *inputs, hostler_callable *model,
                   hostler_tensors *outputs, hostler_error *error) {
    double attempts = 2;
    if (!hostler_config_number("attempts", &attempts, 1, 10, error)) return false;
    for (int attempt = 1;; attempt++) {
        if (hostler_call(model, inputs, outputs, error)) return true;
        if (attempt >= attempts || error->kind == HOSTLER_INVALID_INPUT) return false;
        hostler_count("again", 1);
    }
}
