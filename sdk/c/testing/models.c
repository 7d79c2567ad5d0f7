/* Models of the stand-in. A function answers for each of them, immediately. */
#include "stand_in.h"

#include <stdlib.h>
#include <string.h>

/* A handle to a model, or a call with its outcome. */
typedef struct stand_in_call {
    entry *model;
    hostler_tensors response;
    hostler_error error;
    bool is_ok, is_taken;
} stand_in_call;

static stand_in_call *calls[1 << 12];
static int32_t call_count;

static int32_t keep_call(stand_in_call call) {
    if (call_count == sizeof calls / sizeof *calls) stand_in_trap("more than 4096 calls in one test");
    stand_in_call *kept = hostler_alloc(1, sizeof *kept);
    *kept = call;
    calls[call_count] = kept;
    return ++call_count;
}

static stand_in_call *call_of(int32_t handle) {
    if (handle < 1 || handle > call_count || !calls[handle - 1])
        stand_in_trap("a model or a call was used that does not exist any more");
    return calls[handle - 1];
}

int32_t stand_in_callable(const char *name, testing_function *function) {
    entry *model = stand_in_entry(&standing.models, name, strlen(name));
    model->function = function;
    return keep_call((stand_in_call){.model = model});
}

void stand_in_forget_calls(void) {
    call_count = 0;
}

bool hostler_plugin_models_get(bindings_string_t *name, bindings_string_t *version,
                               hostler_plugin_models_own_callable_t *result,
                               hostler_plugin_models_error_t *fault) {
    (void)version;
    entry *model = stand_in_find(standing.models, (const char *)name->ptr, name->len);
    if (!model) {
        hostler_error error = {HOSTLER_NOT_FOUND, "there is no such model; add it with testing_model", NULL};
        hostler_give_error(&error, "", fault);
        return false;
    }
    result->__handle = keep_call((stand_in_call){.model = model});
    return true;
}

void hostler_plugin_callables_callable_drop_own(hostler_plugin_callables_own_callable_t handle) {
    call_of(handle.__handle);
    calls[handle.__handle - 1] = NULL;
}

void hostler_plugin_callables_invocation_drop_own(hostler_plugin_callables_own_invocation_t handle) {
    call_of(handle.__handle);
    calls[handle.__handle - 1] = NULL;
}

static bindings_string_t given_copy(const char *text) {
    size_t length = strlen(text);
    return (bindings_string_t){length ? memcpy(hostler_own(length, 1), text, length) : NULL, length};
}

void hostler_plugin_callables_method_callable_model(hostler_plugin_callables_borrow_callable_t self,
                                                    bindings_string_t *result) {
    *result = given_copy(call_of(self.__handle)->model->name);
}

void hostler_plugin_callables_method_callable_version(hostler_plugin_callables_borrow_callable_t self,
                                                      bindings_string_t *result) {
    call_of(self.__handle);
    *result = given_copy("1");
}

bool hostler_plugin_callables_method_callable_streaming(hostler_plugin_callables_borrow_callable_t self) {
    call_of(self.__handle);
    return false;
}

/* Runs the function of a model. What it creates ends with the test. */
static stand_in_call run_call(int32_t handle, hostler_plugin_callables_list_borrow_tensor_t *inputs) {
    stand_in_call call = {.model = call_of(handle)->model};
    hostler_tensors given = {0};
    for (size_t at = 0; at < inputs->len; at++) {
        hostler_tensor *lent = hostler_alloc(1, sizeof *lent);
        lent->handle = inputs->ptr[at].__handle;
        hostler_push(&given, lent);
    }
    call.model->counter++;
    call.is_ok = call.model->function(&given, &call.response, &call.error);
    return call;
}

static bool give_call(const stand_in_call *call, hostler_plugin_callables_list_own_tensor_t *result,
                      hostler_plugin_callables_error_t *fault) {
    if (!call->is_ok) {
        hostler_give_error(&call->error, "the function of the model", fault);
        return false;
    }
    *result =
        (hostler_plugin_callables_list_own_tensor_t){stand_in_lend(&call->response), call->response.count};
    return true;
}

bool hostler_plugin_callables_method_callable_call(hostler_plugin_callables_borrow_callable_t self,
                                                   hostler_plugin_callables_list_borrow_tensor_t *inputs,
                                                   hostler_plugin_callables_list_own_tensor_t *result,
                                                   hostler_plugin_callables_error_t *fault) {
    stand_in_call call = run_call(self.__handle, inputs);
    return give_call(&call, result, fault);
}

bool hostler_plugin_callables_method_callable_call_within(
    hostler_plugin_callables_borrow_callable_t self, hostler_plugin_callables_list_borrow_tensor_t *inputs,
    uint64_t timeout_us, hostler_plugin_callables_list_own_tensor_t *result,
    hostler_plugin_callables_error_t *fault) {
    (void)timeout_us;
    return hostler_plugin_callables_method_callable_call(self, inputs, result, fault);
}

bool hostler_plugin_callables_method_callable_start(hostler_plugin_callables_borrow_callable_t self,
                                                    hostler_plugin_callables_list_borrow_tensor_t *inputs,
                                                    hostler_plugin_callables_own_invocation_t *result,
                                                    hostler_plugin_callables_error_t *fault) {
    (void)fault;
    result->__handle = keep_call(run_call(self.__handle, inputs));
    return true;
}

bool hostler_plugin_callables_method_callable_start_within(
    hostler_plugin_callables_borrow_callable_t self, hostler_plugin_callables_list_borrow_tensor_t *inputs,
    uint64_t timeout_us, hostler_plugin_callables_own_invocation_t *result,
    hostler_plugin_callables_error_t *fault) {
    (void)timeout_us;
    return hostler_plugin_callables_method_callable_start(self, inputs, result, fault);
}

bool hostler_plugin_callables_method_invocation_next(
    hostler_plugin_callables_borrow_invocation_t self,
    hostler_plugin_callables_result_list_own_tensor_error_t *result) {
    stand_in_call *call = call_of(self.__handle);
    if (call->is_taken) return false;
    call->is_taken = true;
    result->is_err = !give_call(call, &result->val.ok, &result->val.err);
    return true;
}

bool hostler_plugin_callables_wait_any(hostler_plugin_callables_list_borrow_invocation_t *invocations,
                                       uint64_t *timeout_us, uint32_t *result) {
    (void)timeout_us;
    *result = 0;
    return invocations->len > 0;
}

bool hostler_plugin_callables_answer(hostler_plugin_callables_list_borrow_tensor_t *outputs,
                                     hostler_plugin_callables_error_t *fault) {
    if (standing.answer.count) {
        hostler_error error = {HOSTLER_UNSUPPORTED, "the request has an answer already", NULL};
        hostler_give_error(&error, "", fault);
        return false;
    }
    /* In the memory of the test, since the call of the plugin ends before the test reads it. */
    for (size_t at = 0; at < outputs->len; at++) {
        hostler_tensor lent = {.handle = outputs->ptr[at].__handle};
        hostler_tensor *items[] = {&lent};
        hostler_tensors one = {1, items, 1};
        hostler_plugin_types_own_tensor_t *copy = stand_in_lend(&one);
        standing.answer.items = realloc(standing.answer.items, (at + 1) * sizeof *standing.answer.items);
        hostler_tensor *kept = hostler_own(1, sizeof *kept);
        kept->handle = copy->__handle;
        free(copy);
        standing.answer.items[at] = kept;
        standing.answer.count = at + 1;
    }
    return true;
}
