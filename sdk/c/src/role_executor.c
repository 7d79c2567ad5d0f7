/* The role `executor`: calls plugin_submit. */
#include "internal.h"

#include <stdlib.h>

bool exports_hostler_plugin_executor_submit(exports_hostler_plugin_executor_own_request_t request,
                                            exports_hostler_plugin_executor_list_own_tensor_t *inputs,
                                            exports_hostler_plugin_executor_own_callable_t model,
                                            exports_hostler_plugin_executor_list_own_tensor_t *result,
                                            exports_hostler_plugin_executor_error_t *fault) {
    hostler_scope scope = hostler_scope_begin();
    hostler_request *call = hostler_given_request(request);
    hostler_tensors taken = {0}, outputs = {0};
    hostler_error error = {0};
    hostler_take_tensors(inputs->ptr, inputs->len, &taken);
    bool is_ok = plugin_submit(call, &taken, hostler_given_callable(model), &outputs, &error) &&
                 hostler_give_tensors(&outputs, "plugin_submit", &result->ptr, &result->len, &error);
    if (!is_ok) hostler_give_error(&error, "plugin_submit", fault);
    hostler_scope_end(scope);
    return is_ok;
}

/* The host then calls `submit` for each request. */
bool exports_hostler_plugin_executor_submit_batch(
    exports_hostler_plugin_executor_list_own_request_t *requests,
    exports_hostler_plugin_executor_list_list_own_tensor_t *inputs,
    exports_hostler_plugin_executor_own_callable_t model,
    exports_hostler_plugin_executor_list_result_list_own_tensor_error_t *result,
    exports_hostler_plugin_executor_error_t *fault) {
    (void)result;
    hostler_scope scope = hostler_scope_begin();
    hostler_given_callable(model);
    for (size_t at = 0; at < requests->len; at++) hostler_given_request(requests->ptr[at]);
    if (requests->len) free(requests->ptr);
    hostler_tensors taken = {0};
    for (size_t at = 0; at < inputs->len; at++)
        hostler_take_tensors(inputs->ptr[at].ptr, inputs->ptr[at].len, &taken);
    if (inputs->len) free(inputs->ptr);
    hostler_error error = {0};
    hostler_fail(&error, HOSTLER_UNSUPPORTED, "this executor has no batches");
    hostler_give_error(&error, "", fault);
    hostler_scope_end(scope);
    return false;
}
