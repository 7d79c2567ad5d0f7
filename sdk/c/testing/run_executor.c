/* Runs of an executor. */
#include "stand_in.h"

bool testing_submit(const hostler_tensors *inputs, testing_function *model, hostler_tensors *outputs,
                    hostler_error *error) {
    exports_hostler_plugin_executor_own_request_t request = {1};
    exports_hostler_plugin_executor_list_own_tensor_t given = {stand_in_lend(inputs), inputs->count}, result;
    exports_hostler_plugin_executor_own_callable_t callable = {stand_in_callable("model", model)};
    exports_hostler_plugin_executor_error_t fault;
    bool is_ok = exports_hostler_plugin_executor_submit(request, &given, callable, &result, &fault);
    return stand_in_outcome(is_ok, result.ptr, result.len, &fault, outputs, error);
}
