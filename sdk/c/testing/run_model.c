/* Runs of a model. */
#include "stand_in.h"

#include <stdlib.h>
#include <string.h>

static bool fits(hostler_tensor *tensor, const hostler_plugin_types_tensor_spec_t *spec) {
    if (hostler_type(tensor) != (hostler_datatype)spec->datatype) return false;
    if (hostler_rank(tensor) != spec->shape.len) return false;
    for (size_t at = 0; at < spec->shape.len; at++)
        if (spec->shape.ptr[at] != -1 && spec->shape.ptr[at] != hostler_shape(tensor)[at]) return false;
    return true;
}

/* Checks tensors against metadata, and frees the metadata. Inputs must be there; outputs may be
 * missing. */
static bool check_specs(const hostler_tensors *tensors, hostler_plugin_types_list_tensor_spec_t *specs,
                        bool is_input, hostler_error *error) {
    bool is_ok = true;
    for (size_t at = 0; at < specs->len; at++) {
        hostler_plugin_types_tensor_spec_t *spec = &specs->ptr[at];
        const char *name = hostler_text("%.*s", (int)spec->name.len, (const char *)spec->name.ptr);
        hostler_tensor *found = hostler_named(tensors, name, NULL);
        if (is_ok && (found ? !fits(found, spec) : is_input)) {
            is_ok = hostler_invalid(error, name, "tensor \"%s\" is %s, which does not fit plugin_metadata",
                                    name, found ? hostler_described(found) : "missing");
            if (error && !is_input) error->kind = HOSTLER_FAILED;
        }
        free(spec->name.ptr);
        free(spec->shape.ptr);
    }
    free(specs->ptr);
    return is_ok;
}

bool testing_predict(const hostler_tensors *inputs, hostler_tensors *outputs, hostler_error *error) {
    exports_hostler_plugin_model_model_metadata_t metadata;
    exports_hostler_plugin_model_metadata(&metadata);
    bool is_ok = check_specs(inputs, &metadata.inputs, true, error);
    if (is_ok) {
        exports_hostler_plugin_model_list_own_tensor_t given = {stand_in_lend(inputs), inputs->count}, result;
        exports_hostler_plugin_model_own_request_t request = {1};
        exports_hostler_plugin_model_error_t fault;
        is_ok = exports_hostler_plugin_model_predict(request, &given, &result, &fault);
        is_ok = stand_in_outcome(is_ok, result.ptr, result.len, &fault, outputs, error);
    }
    hostler_tensors none = {0};
    return check_specs(is_ok ? outputs : &none, &metadata.outputs, false, error) && is_ok;
}
