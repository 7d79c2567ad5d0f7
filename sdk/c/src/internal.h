/* What the files of the SDK share. Plugins include hostler.h only. The bindings of a role, whose
 * types are the same for all roles, are included before it. */
#ifndef HOSTLER_INTERNAL_H
#define HOSTLER_INTERNAL_H

#include "../hostler.h"

#include <stdarg.h>

struct hostler_tensor {
    int32_t handle;
    /* Whether the SDK drops the handle at the end of the scope. False once it was given away. */
    bool is_owned;
    /* Filled when first asked for. */
    const char *name;
    const int64_t *shape;
    size_t rank;
    bool has_shape;
};

struct hostler_request {
    int32_t handle;
};

/* A list of specs that grows. */
typedef struct hostler_specs {
    hostler_plugin_types_tensor_spec_t *items;
    size_t count, capacity;
} hostler_specs;

struct hostler_metadata {
    hostler_specs inputs, outputs;
};

/* Memory and handles that end together: those of one call of a function of the plugin. Scopes are
 * nested in unit tests only. */
typedef struct hostler_scope {
    size_t kept;
    char *chunk;
    size_t chunk_left;
} hostler_scope;

hostler_scope hostler_scope_begin(void);
/* Releases all that was kept since the scope began, the newest first. */
void hostler_scope_end(hostler_scope scope);
/* Releases `item` at the end of the current scope. */
void hostler_keep(void *item, void (*release)(void *));

/* Like malloc and realloc, and trap if there is not as much memory. The caller frees. */
void *hostler_own(size_t count, size_t size);
void *hostler_grow(void *items, size_t count, size_t *capacity, size_t size);

/* Formats a text of the current scope. */
const char *hostler_format(const char *format, va_list values);
/* Adds a NUL byte to memory from malloc, and keeps it in the scope. */
char *hostler_taken(uint8_t *data, size_t length);
/* A text of the host becomes one of the scope. */
const char *hostler_from_host(bindings_string_t text);
/* A text for the host, borrowed for one call: with '?' for bytes that are not UTF-8. NULL is empty. */
bindings_string_t hostler_to_host(const char *text);
bindings_string_t hostler_bytes_to_host(const char *text, size_t length);
/* A text that the host receives as a result, and frees. */
bindings_string_t hostler_given(const char *text);
bindings_string_t hostler_given_bytes(const char *text, size_t length);

/* Takes over an error of the host. Returns false. */
bool hostler_take_error(hostler_plugin_types_error_t *from, hostler_error *error);
/* Gives an error to the host. `function` is named if it has returned false without an error. */
void hostler_give_error(const hostler_error *error, const char *function,
                        hostler_plugin_types_error_t *to);

/* A tensor of the current scope, which owns the handle. */
hostler_tensor *hostler_owned_tensor(int32_t handle);
/* Takes over a list of the host, and adds its tensors. */
void hostler_take_tensors(hostler_plugin_types_own_tensor_t *items, size_t count, hostler_tensors *tensors);
/* Creates a tensor, and adds the number of elements to an error of the host, which counts bytes. */
hostler_tensor *hostler_create_elements(const char *name, hostler_datatype datatype, const int64_t *shape,
                                        size_t rank, const void *data, size_t bytes, size_t count,
                                        hostler_error *error);
/* Gives tensors to the host. Fails if one of them is NULL or occurs twice. */
bool hostler_give_tensors(const hostler_tensors *tensors, const char *function,
                          hostler_plugin_types_own_tensor_t **items, size_t *count,
                          hostler_error *error);
void hostler_give_specs(const hostler_specs *specs, hostler_plugin_types_list_tensor_spec_t *to);

/* The request and the model that a function of the plugin receives. The scope drops them. */
hostler_request *hostler_given_request(hostler_plugin_types_own_request_t handle);
hostler_callable *hostler_given_callable(hostler_plugin_callables_own_callable_t handle);

#endif
