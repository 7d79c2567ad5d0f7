/* Requests: their parameters and notes. */
#include "internal.h"

#include <stdlib.h>
#include <string.h>

static hostler_plugin_types_borrow_request_t lent_request(const hostler_request *request) {
    return (hostler_plugin_types_borrow_request_t){request->handle};
}

static void release_request(void *item) {
    hostler_request *request = item;
    hostler_plugin_types_request_drop_own((hostler_plugin_types_own_request_t){request->handle});
}

hostler_request *hostler_given_request(hostler_plugin_types_own_request_t handle) {
    hostler_request *request = hostler_alloc(1, sizeof *request);
    request->handle = handle.__handle;
    hostler_keep(request, release_request);
    return request;
}

#define TEXT_OF_REQUEST(function, method)                                                            \
    const char *function(hostler_request *request) {                                                 \
        bindings_string_t text;                                                                      \
        hostler_plugin_types_method_request_##method(lent_request(request), &text);                        \
        return hostler_from_host(text);                                                              \
    }

TEXT_OF_REQUEST(hostler_request_id, id)
TEXT_OF_REQUEST(hostler_request_model, model)
TEXT_OF_REQUEST(hostler_request_version, version)

bool hostler_time_left(hostler_request *request, uint64_t *ms) {
    return hostler_plugin_types_method_request_time_left(lent_request(request), ms);
}

bool hostler_cancelled(hostler_request *request) {
    return hostler_plugin_types_method_request_cancelled(lent_request(request));
}

/* Returns whether the request has the parameter. */
static bool find_parameter(hostler_request *request, const char *name, hostler_plugin_types_parameter_t *found) {
    bindings_string_t text = hostler_to_host(name);
    return hostler_plugin_types_method_request_parameter(lent_request(request), &text, found);
}

static bool wrong_type(hostler_plugin_types_parameter_t *found, const char *name, const char *expected,
                       hostler_error *error) {
    if (found->tag == HOSTLER_PLUGIN_TYPES_PARAMETER_TEXT) hostler_from_host(found->val.text);
    return hostler_invalid(error, hostler_text("parameters.%s", name), "expected %s", expected);
}

bool hostler_flag(hostler_request *request, const char *name, bool *value, hostler_error *error) {
    hostler_plugin_types_parameter_t found;
    if (!find_parameter(request, name, &found)) return true;
    if (found.tag != HOSTLER_PLUGIN_TYPES_PARAMETER_BOOLEAN)
        return wrong_type(&found, name, "true or false", error);
    *value = found.val.boolean;
    return true;
}

bool hostler_integer(hostler_request *request, const char *name, int64_t *value, hostler_error *error) {
    hostler_plugin_types_parameter_t found;
    if (!find_parameter(request, name, &found)) return true;
    if (found.tag != HOSTLER_PLUGIN_TYPES_PARAMETER_INTEGER)
        return wrong_type(&found, name, "an integer", error);
    *value = found.val.integer;
    return true;
}

bool hostler_number(hostler_request *request, const char *name, double *value, hostler_error *error) {
    hostler_plugin_types_parameter_t found;
    if (!find_parameter(request, name, &found)) return true;
    if (found.tag == HOSTLER_PLUGIN_TYPES_PARAMETER_INTEGER)
        *value = (double)found.val.integer;
    else if (found.tag == HOSTLER_PLUGIN_TYPES_PARAMETER_NUMBER)
        *value = found.val.number;
    else
        return wrong_type(&found, name, "a number", error);
    return true;
}

bool hostler_string(hostler_request *request, const char *name, const char **value,
                    hostler_error *error) {
    hostler_plugin_types_parameter_t found;
    if (!find_parameter(request, name, &found)) return true;
    if (found.tag != HOSTLER_PLUGIN_TYPES_PARAMETER_TEXT) return wrong_type(&found, name, "a text", error);
    *value = hostler_from_host(found.val.text);
    return true;
}

hostler_slice hostler_note(hostler_request *request) {
    bindings_list_u8_t note;
    hostler_plugin_types_method_request_note(lent_request(request), &note);
    return (hostler_slice){hostler_taken(note.ptr, note.len), note.len};
}

void hostler_set_note(hostler_request *request, const void *data, size_t length) {
    bindings_list_u8_t note = {(uint8_t *)(uintptr_t)data, length};
    hostler_plugin_types_method_request_set_note(lent_request(request), &note);
}
