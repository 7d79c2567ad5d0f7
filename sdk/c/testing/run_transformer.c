/* Runs of a transformer. */
#include "stand_in.h"

#include <string.h>

static bool run_preprocess(hostler_plugin_types_payload_t *payload, hostler_tensors *inputs,
                           hostler_error *error) {
    exports_hostler_plugin_transformer_own_request_t request = {1};
    exports_hostler_plugin_transformer_list_own_tensor_t result;
    exports_hostler_plugin_transformer_error_t fault;
    bool is_ok = exports_hostler_plugin_transformer_preprocess(request, payload, &result, &fault);
    return stand_in_outcome(is_ok, result.ptr, result.len, &fault, inputs, error);
}

bool testing_preprocess(const char *json, hostler_tensors *inputs, hostler_error *error) {
    hostler_plugin_types_payload_t payload = {.tag = HOSTLER_PLUGIN_TYPES_PAYLOAD_JSON};
    payload.val.json = hostler_given(json);
    return run_preprocess(&payload, inputs, error);
}

bool testing_preprocess_bytes(const char *content_type, const void *data, size_t length,
                              hostler_tensors *inputs, hostler_error *error) {
    hostler_plugin_types_payload_t payload = {.tag = HOSTLER_PLUGIN_TYPES_PAYLOAD_BYTES};
    payload.val.bytes.content_type = hostler_given(content_type);
    payload.val.bytes.data.len = length;
    if (length) payload.val.bytes.data.ptr = memcpy(hostler_own(length, 1), data, length);
    return run_preprocess(&payload, inputs, error);
}

bool testing_postprocess(const hostler_tensors *outputs, hostler_payload *answer, hostler_error *error) {
    exports_hostler_plugin_transformer_own_request_t request = {1};
    exports_hostler_plugin_transformer_list_own_tensor_t given = {stand_in_lend(outputs), outputs->count};
    exports_hostler_plugin_transformer_payload_t result;
    exports_hostler_plugin_transformer_error_t fault;
    if (!exports_hostler_plugin_transformer_postprocess(request, &given, &result, &fault))
        return hostler_take_error(&fault, error);
    *answer = take_payload(&result);
    return true;
}

bool testing_transform(const char *json, testing_function *model, hostler_payload *answer,
                       hostler_error *error) {
    hostler_tensors inputs = {0}, outputs = {0};
    return testing_preprocess(json, &inputs, error) && model(&inputs, &outputs, error) &&
           testing_postprocess(&outputs, answer, error);
}
