/* Calls to models. */
#include "internal.h"

#include <stdlib.h>
#include <string.h>

struct hostler_callable {
    int32_t handle;
};

struct hostler_invocation {
    int32_t handle;
    bool is_open;
};

/* A function that fails because a function before it has returned NULL. */
#define MISSING(pointer, result)                                                                     \
    if (!(pointer)) return result

static hostler_plugin_callables_borrow_callable_t lent_callable(const hostler_callable *model) {
    return (hostler_plugin_callables_borrow_callable_t){model->handle};
}

static hostler_plugin_callables_borrow_invocation_t lent_invocation(const hostler_invocation *invocation) {
    return (hostler_plugin_callables_borrow_invocation_t){invocation->handle};
}

static void release_callable(void *item) {
    hostler_callable *model = item;
    hostler_plugin_callables_callable_drop_own((hostler_plugin_callables_own_callable_t){model->handle});
}

static void release_invocation(void *item) {
    hostler_invocation *invocation = item;
    if (!invocation->is_open) return;
    invocation->is_open = false;
    hostler_plugin_callables_invocation_drop_own(
        (hostler_plugin_callables_own_invocation_t){invocation->handle});
}

hostler_callable *hostler_given_callable(hostler_plugin_callables_own_callable_t handle) {
    hostler_callable *model = hostler_alloc(1, sizeof *model);
    model->handle = handle.__handle;
    hostler_keep(model, release_callable);
    return model;
}

hostler_callable *hostler_model(const char *model, const char *version, hostler_error *error) {
    bindings_string_t name = hostler_to_host(model), text = hostler_to_host(version);
    hostler_plugin_models_own_callable_t found;
    hostler_plugin_models_error_t fault;
    if (!hostler_plugin_models_get(&name, version ? &text : NULL, &found, &fault)) {
        hostler_take_error(&fault, error);
        return NULL;
    }
    return hostler_given_callable(found);
}

const char *hostler_callable_model(hostler_callable *model) {
    MISSING(model, "");
    bindings_string_t text;
    hostler_plugin_callables_method_callable_model(lent_callable(model), &text);
    return hostler_from_host(text);
}

const char *hostler_callable_version(hostler_callable *model) {
    MISSING(model, "");
    bindings_string_t text;
    hostler_plugin_callables_method_callable_version(lent_callable(model), &text);
    return hostler_from_host(text);
}

bool hostler_is_streaming(hostler_callable *model) {
    return model && hostler_plugin_callables_method_callable_streaming(lent_callable(model));
}

/* Lends tensors for one call. */
static hostler_plugin_callables_list_borrow_tensor_t lent_tensors(const hostler_tensors *tensors) {
    hostler_plugin_callables_list_borrow_tensor_t list = {NULL, tensors->count};
    list.ptr = hostler_alloc(tensors->count, sizeof *list.ptr);
    for (size_t at = 0; at < tensors->count; at++)
        list.ptr[at] = (hostler_plugin_types_borrow_tensor_t){tensors->items[at]->handle};
    return list;
}

bool hostler_call(hostler_callable *model, const hostler_tensors *inputs, hostler_tensors *outputs,
                  hostler_error *error) {
    MISSING(model, false);
    hostler_plugin_callables_list_borrow_tensor_t list = lent_tensors(inputs);
    hostler_plugin_callables_list_own_tensor_t response;
    hostler_plugin_callables_error_t fault;
    if (!hostler_plugin_callables_method_callable_call(lent_callable(model), &list, &response, &fault))
        return hostler_take_error(&fault, error);
    hostler_take_tensors(response.ptr, response.len, outputs);
    return true;
}

bool hostler_call_within(hostler_callable *model, const hostler_tensors *inputs, uint64_t timeout_us,
                         hostler_tensors *outputs, hostler_error *error) {
    MISSING(model, false);
    hostler_plugin_callables_list_borrow_tensor_t list = lent_tensors(inputs);
    hostler_plugin_callables_list_own_tensor_t response;
    hostler_plugin_callables_error_t fault;
    if (!hostler_plugin_callables_method_callable_call_within(lent_callable(model), &list, timeout_us, &response,
                                                              &fault))
        return hostler_take_error(&fault, error);
    hostler_take_tensors(response.ptr, response.len, outputs);
    return true;
}

static hostler_invocation *started_invocation(hostler_plugin_callables_own_invocation_t handle) {
    hostler_invocation *invocation = hostler_alloc(1, sizeof *invocation);
    *invocation = (hostler_invocation){handle.__handle, true};
    hostler_keep(invocation, release_invocation);
    return invocation;
}

hostler_invocation *hostler_start(hostler_callable *model, const hostler_tensors *inputs,
                                  hostler_error *error) {
    MISSING(model, NULL);
    hostler_plugin_callables_list_borrow_tensor_t list = lent_tensors(inputs);
    hostler_plugin_callables_own_invocation_t handle;
    hostler_plugin_callables_error_t fault;
    if (hostler_plugin_callables_method_callable_start(lent_callable(model), &list, &handle, &fault))
        return started_invocation(handle);
    hostler_take_error(&fault, error);
    return NULL;
}

hostler_invocation *hostler_start_within(hostler_callable *model, const hostler_tensors *inputs,
                                         uint64_t timeout_us, hostler_error *error) {
    MISSING(model, NULL);
    hostler_plugin_callables_list_borrow_tensor_t list = lent_tensors(inputs);
    hostler_plugin_callables_own_invocation_t handle;
    hostler_plugin_callables_error_t fault;
    if (hostler_plugin_callables_method_callable_start_within(lent_callable(model), &list, timeout_us, &handle,
                                                              &fault))
        return started_invocation(handle);
    hostler_take_error(&fault, error);
    return NULL;
}

bool hostler_next(hostler_invocation *invocation, hostler_tensors *outputs, hostler_error *error) {
    if (!invocation || !invocation->is_open) return false;
    hostler_plugin_callables_result_list_own_tensor_error_t response;
    if (!hostler_plugin_callables_method_invocation_next(lent_invocation(invocation), &response)) return false;
    if (response.is_err) return hostler_take_error(&response.val.err, error);
    hostler_take_tensors(response.val.ok.ptr, response.val.ok.len, outputs);
    return true;
}

void hostler_cancel(hostler_invocation *invocation) {
    if (invocation) release_invocation(invocation);
}

int hostler_wait_any(hostler_invocation *const *invocations, size_t count, uint64_t timeout_us) {
    hostler_plugin_callables_list_borrow_invocation_t list = {NULL, 0};
    list.ptr = hostler_alloc(count, sizeof *list.ptr);
    int *indices = hostler_alloc(count, sizeof *indices);
    for (size_t at = 0; at < count; at++) {
        if (!invocations[at] || !invocations[at]->is_open) continue;
        indices[list.len] = (int)at;
        list.ptr[list.len++] = lent_invocation(invocations[at]);
    }
    uint32_t index;
    uint64_t *timeout = timeout_us == UINT64_MAX ? NULL : &timeout_us;
    if (list.len == 0 && !timeout) return -1;
    return hostler_plugin_callables_wait_any(&list, timeout, &index) ? indices[index] : -1;
}

void hostler_sleep(uint64_t us) {
    hostler_wait_any(NULL, 0, us);
}

bool hostler_answer_now(const hostler_tensors *outputs, hostler_error *error) {
    hostler_plugin_callables_list_borrow_tensor_t list = lent_tensors(outputs);
    hostler_plugin_callables_error_t fault;
    if (hostler_plugin_callables_answer(&list, &fault)) return true;
    return hostler_take_error(&fault, error);
}
