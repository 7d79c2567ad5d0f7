/* Tensors from arrays and back. */
#include "internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct {
    const char *name;
    /* The size of an element in bytes, 0 for BYTES. */
    size_t bytes;
    /* The function that reads it. */
    const char *reader;
} datatypes[] = {
    {"BOOL", 1, "hostler_to_bool"},   {"UINT8", 1, "hostler_to_u8"},    {"UINT16", 2, "hostler_to_u16"},
    {"UINT32", 4, "hostler_to_u32"},  {"UINT64", 8, "hostler_to_u64"},  {"INT8", 1, "hostler_to_i8"},
    {"INT16", 2, "hostler_to_i16"},   {"INT32", 4, "hostler_to_i32"},   {"INT64", 8, "hostler_to_i64"},
    {"FP16", 2, "hostler_to_floats"}, {"BF16", 2, "hostler_to_floats"}, {"FP32", 4, "hostler_to_f32"},
    {"FP64", 8, "hostler_to_f64"},    {"BYTES", 0, "hostler_to_bytes"},
};

#define DATATYPES (sizeof datatypes / sizeof *datatypes)

const char *hostler_datatype_name(hostler_datatype datatype) {
    return (size_t)datatype < DATATYPES ? datatypes[datatype].name : "an unknown datatype";
}

/* ---- Handles ---- */

static hostler_plugin_types_borrow_tensor_t lent_tensor(const hostler_tensor *tensor) {
    return (hostler_plugin_types_borrow_tensor_t){tensor->handle};
}

static void release_tensor(void *item) {
    hostler_tensor *tensor = item;
    if (!tensor->is_owned) return;
    tensor->is_owned = false;
    hostler_plugin_types_tensor_drop_own((hostler_plugin_types_own_tensor_t){tensor->handle});
}

hostler_tensor *hostler_owned_tensor(int32_t handle) {
    hostler_tensor *tensor = hostler_alloc(1, sizeof *tensor);
    tensor->handle = handle;
    tensor->is_owned = true;
    hostler_keep(tensor, release_tensor);
    return tensor;
}

bool hostler_push(hostler_tensors *tensors, hostler_tensor *tensor) {
    if (!tensor) return false;
    if (tensors->count == tensors->capacity) {
        /* Lists may outlive the scope that they grow in, so each one has memory of the scope. */
        size_t capacity = tensors->capacity ? tensors->capacity * 2 : 8;
        hostler_tensor **items = hostler_alloc(capacity, sizeof *items);
        if (tensors->count) memcpy(items, tensors->items, tensors->count * sizeof *items);
        tensors->items = items;
        tensors->capacity = capacity;
    }
    tensors->items[tensors->count++] = tensor;
    return true;
}

void hostler_take_tensors(hostler_plugin_types_own_tensor_t *items, size_t count,
                          hostler_tensors *tensors) {
    for (size_t at = 0; at < count; at++) hostler_push(tensors, hostler_owned_tensor(items[at].__handle));
    if (count) free(items);
}

bool hostler_give_tensors(const hostler_tensors *tensors, const char *function,
                          hostler_plugin_types_own_tensor_t **items, size_t *count,
                          hostler_error *error) {
    for (size_t at = 0; at < tensors->count; at++) {
        if (!tensors->items[at])
            return hostler_fail(error, HOSTLER_FAILED, "%s returned NULL as tensor %zu", function, at);
        for (size_t other = 0; other < at; other++)
            if (tensors->items[other] == tensors->items[at])
                return hostler_fail(error, HOSTLER_FAILED,
                                    "%s returned the same tensor, \"%s\", as %zu and %zu; a tensor may be "
                                    "returned once, and hostler_renamed makes another one of the same data",
                                    function, hostler_name(tensors->items[at]), other, at);
    }
    *count = tensors->count;
    *items = *count ? hostler_own(*count, sizeof **items) : NULL;
    for (size_t at = 0; at < *count; at++) {
        tensors->items[at]->is_owned = false;
        (*items)[at] = (hostler_plugin_types_own_tensor_t){tensors->items[at]->handle};
    }
    return true;
}

/* ---- Metadata ---- */

static void add_spec(hostler_specs *specs, const char *name, hostler_datatype datatype,
                     const int64_t *shape, size_t rank) {
    specs->items = hostler_grow(specs->items, specs->count, &specs->capacity, sizeof *specs->items);
    hostler_plugin_types_tensor_spec_t *spec = &specs->items[specs->count++];
    memset(spec, 0, sizeof *spec);
    spec->name = hostler_given(name);
    spec->datatype = (hostler_plugin_types_datatype_t)datatype;
    spec->shape.len = rank;
    if (rank) spec->shape.ptr = memcpy(hostler_own(rank, sizeof *shape), shape, rank * sizeof *shape);
}

void hostler_input(hostler_metadata *metadata, const char *name, hostler_datatype datatype,
                   const int64_t *shape, size_t rank) {
    add_spec(&metadata->inputs, name, datatype, shape, rank);
}

void hostler_output(hostler_metadata *metadata, const char *name, hostler_datatype datatype,
                    const int64_t *shape, size_t rank) {
    add_spec(&metadata->outputs, name, datatype, shape, rank);
}

void hostler_give_specs(const hostler_specs *specs, hostler_plugin_types_list_tensor_spec_t *to) {
    to->ptr = specs->items;
    to->len = specs->count;
}

/* ---- Properties ---- */

const char *hostler_name(hostler_tensor *tensor) {
    if (!tensor) return "";
    if (!tensor->name) {
        bindings_string_t name;
        hostler_plugin_types_method_tensor_name(lent_tensor(tensor), &name);
        tensor->name = hostler_from_host(name);
    }
    return tensor->name;
}

hostler_datatype hostler_type(hostler_tensor *tensor) {
    if (!tensor) return HOSTLER_BYTES;
    return (hostler_datatype)hostler_plugin_types_method_tensor_datatype(lent_tensor(tensor));
}

static void find_shape(hostler_tensor *tensor) {
    if (tensor->has_shape) return;
    bindings_list_s64_t shape;
    hostler_plugin_types_method_tensor_shape(lent_tensor(tensor), &shape);
    tensor->rank = shape.len;
    if (shape.len) hostler_keep(shape.ptr, free);
    tensor->shape = shape.len ? shape.ptr : NULL;
    tensor->has_shape = true;
}

const int64_t *hostler_shape(hostler_tensor *tensor) {
    static const int64_t none[1];
    if (!tensor) return none;
    find_shape(tensor);
    return tensor->rank ? tensor->shape : none;
}

size_t hostler_rank(hostler_tensor *tensor) {
    if (!tensor) return 0;
    find_shape(tensor);
    return tensor->rank;
}

uint64_t hostler_byte_length(hostler_tensor *tensor) {
    return tensor ? hostler_plugin_types_method_tensor_byte_length(lent_tensor(tensor)) : 0;
}

static const char *describe(hostler_datatype datatype, const int64_t *shape, size_t rank) {
    const char *text = hostler_text("%s [", hostler_datatype_name(datatype));
    for (size_t at = 0; at < rank; at++)
        text = hostler_text("%s%s%lld", text, at ? "," : "", (long long)shape[at]);
    return hostler_text("%s]", text);
}

const char *hostler_described(hostler_tensor *tensor) {
    return tensor ? describe(hostler_type(tensor), hostler_shape(tensor), hostler_rank(tensor)) : "NULL";
}

/* Returns the names of all tensors. The memory is that of one text: clients decide how many there are. */
static const char *quoted_names(const hostler_tensors *tensors) {
    size_t bytes = 1;
    for (size_t at = 0; at < tensors->count; at++) bytes += strlen(hostler_name(tensors->items[at])) + 4;
    char *names = hostler_alloc(bytes, 1), *to = names;
    for (size_t at = 0; at < tensors->count; at++) {
        const char *name = hostler_name(tensors->items[at]);
        to += snprintf(to, bytes - (size_t)(to - names), "%s\"%s\"", at ? ", " : "", name);
    }
    return names;
}

hostler_tensor *hostler_named(const hostler_tensors *tensors, const char *name, hostler_error *error) {
    for (size_t at = 0; at < tensors->count; at++)
        if (strcmp(hostler_name(tensors->items[at]), name) == 0) return tensors->items[at];
    if (error)
        hostler_fail(error, HOSTLER_FAILED, "no tensor is named \"%s\"; there is %s", name,
                     tensors->count ? quoted_names(tensors) : "none");
    return NULL;
}

/* ---- Derived tensors ---- */

hostler_tensor *hostler_renamed(hostler_tensor *tensor, const char *name) {
    if (!tensor) return NULL;
    bindings_string_t text = hostler_to_host(name);
    return hostler_owned_tensor(hostler_plugin_types_method_tensor_renamed(lent_tensor(tensor), &text).__handle);
}

static bindings_list_s64_t dimension_list(const int64_t *shape, size_t rank) {
    return (bindings_list_s64_t){(int64_t *)(uintptr_t)shape, rank};
}

hostler_tensor *hostler_reshaped(hostler_tensor *tensor, const int64_t *shape, size_t rank,
                                 hostler_error *error) {
    if (!tensor) return NULL;
    bindings_list_s64_t list = dimension_list(shape, rank);
    hostler_plugin_types_own_tensor_t made;
    hostler_plugin_types_error_t fault;
    if (hostler_plugin_types_method_tensor_reshaped(lent_tensor(tensor), &list, &made, &fault))
        return hostler_owned_tensor(made.__handle);
    hostler_take_error(&fault, error);
    return NULL;
}

/* ---- Creation ---- */

hostler_tensor *hostler_tensor_create(const char *name, hostler_datatype datatype, const int64_t *shape,
                                      size_t rank, const void *data, size_t bytes, hostler_error *error) {
    if ((size_t)datatype >= DATATYPES) {
        hostler_fail(error, HOSTLER_FAILED, "tensor \"%s\": %d is not a datatype", name, (int)datatype);
        return NULL;
    }
    bindings_string_t text = hostler_to_host(name);
    bindings_list_s64_t list = dimension_list(shape, rank);
    bindings_list_u8_t content = {(uint8_t *)(uintptr_t)data, bytes};
    hostler_plugin_types_own_tensor_t made;
    hostler_plugin_types_error_t fault;
    if (hostler_plugin_types_static_tensor_create(
            &text, (hostler_plugin_types_datatype_t)datatype, &list, &content, &made, &fault))
        return hostler_owned_tensor(made.__handle);
    hostler_take_error(&fault, error);
    return NULL;
}

hostler_tensor *hostler_create_elements(const char *name, hostler_datatype datatype, const int64_t *shape,
                                        size_t rank, const void *data, size_t bytes, size_t count,
                                        hostler_error *error) {
    hostler_error fault = {0};
    /* The function that should have returned the elements has failed, and has set the error. */
    if (!data && error && error->message) return NULL;
    if (!data && count) {
        hostler_fail(error, HOSTLER_FAILED, "tensor \"%s\": its %zu elements are NULL", name, count);
        return NULL;
    }
    hostler_tensor *made = hostler_tensor_create(name, datatype, shape, rank, data, bytes, &fault);
    if (!made && error)
        *error = (hostler_error){
            fault.kind, hostler_text("%s; %zu elements were given", fault.message, count), fault.field};
    return made;
}

#define CREATE(function, element, datatype)                                                          \
    hostler_tensor *function(const char *name, const int64_t *shape, size_t rank,                    \
                             const element *elements, size_t count, hostler_error *error) {          \
        return hostler_create_elements(name, datatype, shape, rank, elements, count * sizeof *elements,      \
                                       count, error);                                                \
    }

CREATE(hostler_boolean, bool, HOSTLER_BOOL)
CREATE(hostler_uint8, uint8_t, HOSTLER_UINT8)
CREATE(hostler_uint16, uint16_t, HOSTLER_UINT16)
CREATE(hostler_uint32, uint32_t, HOSTLER_UINT32)
CREATE(hostler_uint64, uint64_t, HOSTLER_UINT64)
CREATE(hostler_int8, int8_t, HOSTLER_INT8)
CREATE(hostler_int16, int16_t, HOSTLER_INT16)
CREATE(hostler_int32, int32_t, HOSTLER_INT32)
CREATE(hostler_int64, int64_t, HOSTLER_INT64)
CREATE(hostler_fp32, float, HOSTLER_FP32)
CREATE(hostler_fp64, double, HOSTLER_FP64)

hostler_tensor *hostler_bytes(const char *name, const int64_t *shape, size_t rank,
                              const hostler_slice *elements, size_t count, hostler_error *error) {
    if (!elements) return hostler_create_elements(name, HOSTLER_BYTES, shape, rank, NULL, 0, count, error);
    /* Elements may share their bytes, so the sum can exceed what a plugin can address. */
    size_t bytes = 0;
    for (size_t at = 0; at < count; at++) {
        size_t length = elements[at].length;
        if ((uint64_t)length > UINT32_MAX || length > SIZE_MAX - 4 - bytes) {
            hostler_fail(error, HOSTLER_TOO_LARGE, "tensor \"%s\": its %zu elements are too large", name, count);
            return NULL;
        }
        bytes += 4 + length;
    }
    uint8_t *data = hostler_alloc(bytes, 1), *to = data;
    for (size_t at = 0; at < count; at++) {
        uint32_t length = (uint32_t)elements[at].length;
        for (int shift = 0; shift < 32; shift += 8) *to++ = (uint8_t)(length >> shift);
        if (length) memcpy(to, elements[at].data, length);
        to += length;
    }
    return hostler_create_elements(name, HOSTLER_BYTES, shape, rank, data, bytes, count, error);
}

/* ---- Reading ---- */

uint8_t *hostler_read(hostler_tensor *tensor, uint64_t offset, uint64_t length, size_t *read) {
    *read = 0;
    if (!tensor) return NULL;
    bindings_list_u8_t content;
    hostler_plugin_types_method_tensor_read(lent_tensor(tensor), offset, length, &content);
    *read = content.len;
    /* An empty list has no memory. */
    if (content.len == 0) return hostler_alloc(1, 1);
    hostler_keep(content.ptr, free);
    return content.ptr;
}

/* Copies all bytes of a tensor of this datatype. */
static void *copy_data(hostler_tensor *tensor, hostler_datatype expected, const char *function,
                    size_t *count, hostler_error *error) {
    *count = 0;
    if (!tensor) return NULL;
    hostler_datatype datatype = hostler_type(tensor);
    if (datatype != expected) {
        hostler_fail(error, HOSTLER_FAILED, "tensor \"%s\": %s: expected %s, got %s; read it with %s",
                     hostler_name(tensor), function, hostler_datatype_name(expected),
                     hostler_datatype_name(datatype), datatypes[datatype].reader);
        return NULL;
    }
    size_t bytes;
    void *data = hostler_read(tensor, 0, UINT64_MAX, &bytes);
    *count = datatypes[datatype].bytes ? bytes / datatypes[datatype].bytes : bytes;
    return data;
}

#define READ(function, element, datatype)                                                            \
    element *function(hostler_tensor *tensor, size_t *count, hostler_error *error) {                 \
        return copy_data(tensor, datatype, #function, count, error);                                    \
    }

READ(hostler_to_u8, uint8_t, HOSTLER_UINT8)
READ(hostler_to_u16, uint16_t, HOSTLER_UINT16)
READ(hostler_to_u32, uint32_t, HOSTLER_UINT32)
READ(hostler_to_u64, uint64_t, HOSTLER_UINT64)
READ(hostler_to_i8, int8_t, HOSTLER_INT8)
READ(hostler_to_i16, int16_t, HOSTLER_INT16)
READ(hostler_to_i32, int32_t, HOSTLER_INT32)
READ(hostler_to_i64, int64_t, HOSTLER_INT64)
READ(hostler_to_f32, float, HOSTLER_FP32)
READ(hostler_to_f64, double, HOSTLER_FP64)

bool *hostler_to_bool(hostler_tensor *tensor, size_t *count, hostler_error *error) {
    uint8_t *data = copy_data(tensor, HOSTLER_BOOL, "hostler_to_bool", count, error);
    /* Any other byte than 0 and 1 is not a value of `bool`. */
    for (size_t at = 0; at < *count; at++) data[at] = data[at] != 0;
    return (bool *)data;
}

hostler_slice *hostler_to_bytes(hostler_tensor *tensor, size_t *count, hostler_error *error) {
    size_t bytes;
    *count = 0;
    const uint8_t *data = copy_data(tensor, HOSTLER_BYTES, "hostler_to_bytes", &bytes, error);
    if (!data) return NULL;
    /* The host has checked the lengths. */
    size_t elements = 0;
    for (size_t at = 0; at + 4 <= bytes; elements++)
        at += 4 + ((size_t)data[at] | (size_t)data[at + 1] << 8 | (size_t)data[at + 2] << 16 |
                   (size_t)data[at + 3] << 24);
    hostler_slice *slices = hostler_alloc(elements, sizeof *slices);
    for (size_t at = 0; *count < elements;) {
        size_t length = (size_t)data[at] | (size_t)data[at + 1] << 8 | (size_t)data[at + 2] << 16 |
                        (size_t)data[at + 3] << 24;
        char *text = hostler_alloc(length + 1, 1);
        memcpy(text, data + at + 4, length);
        slices[(*count)++] = (hostler_slice){text, length};
        at += 4 + length;
    }
    return slices;
}
