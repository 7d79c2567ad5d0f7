/* The role `model`: calls plugin_metadata and plugin_predict. */
#include "internal.h"

void exports_hostler_plugin_model_metadata(exports_hostler_plugin_model_model_metadata_t *result) {
    hostler_scope scope = hostler_scope_begin();
    hostler_metadata metadata = {0};
    plugin_metadata(&metadata);
    hostler_give_specs(&metadata.inputs, &result->inputs);
    hostler_give_specs(&metadata.outputs, &result->outputs);
    hostler_scope_end(scope);
}

bool exports_hostler_plugin_model_predict(exports_hostler_plugin_model_own_request_t request,
                                          exports_hostler_plugin_model_list_own_tensor_t *inputs,
                                          exports_hostler_plugin_model_list_own_tensor_t *result,
                                          exports_hostler_plugin_model_error_t *fault) {
    hostler_scope scope = hostler_scope_begin();
    hostler_request *call = hostler_given_request(request);
    hostler_tensors taken = {0}, outputs = {0};
    hostler_error error = {0};
    hostler_take_tensors(inputs->ptr, inputs->len, &taken);
    bool is_ok = plugin_predict(call, &taken, &outputs, &error) &&
                 hostler_give_tensors(&outputs, "plugin_predict", &result->ptr, &result->len, &error);
    if (!is_ok) hostler_give_error(&error, "plugin_predict", fault);
    hostler_scope_end(scope);
    return is_ok;
}
