/* Tensors of the stand-in. */
#include "stand_in.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct stored {
    bool is_live;
    char *name;
    int datatype;
    int64_t *shape;
    size_t rank;
    uint8_t *data;
    size_t bytes;
} stored;

static stored *tensors;
static size_t tensor_count, tensor_capacity;

static void *copy_of(const void *data, size_t bytes) {
    void *copy = hostler_own(bytes, 1);
    return bytes ? memcpy(copy, data, bytes) : copy;
}

/* A list as the host returns it: an empty one has no memory. */
static uint8_t *returned(const void *data, size_t bytes) {
    return bytes ? copy_of(data, bytes) : NULL;
}

static stored *of_handle(int32_t handle) {
    if (handle < 1 || (size_t)handle > tensor_count || !tensors[handle - 1].is_live)
        stand_in_trap("a tensor was used that does not exist any more");
    return &tensors[handle - 1];
}

static int32_t store(const char *name, size_t name_length, int datatype, const int64_t *shape, size_t rank,
                     const void *data, size_t bytes) {
    stored made = {true, hostler_own(name_length + 1, 1), datatype, copy_of(shape, rank * sizeof *shape),
                   rank, copy_of(data, bytes), bytes};
    if (name_length) memcpy(made.name, name, name_length);
    tensors = hostler_grow(tensors, tensor_count, &tensor_capacity, sizeof *tensors);
    tensors[tensor_count++] = made;
    return (int32_t)tensor_count;
}

static int32_t same(int32_t handle) {
    stored from = *of_handle(handle);
    return store(from.name, strlen(from.name), from.datatype, from.shape, from.rank, from.data, from.bytes);
}

void hostler_plugin_types_tensor_drop_own(hostler_plugin_types_own_tensor_t handle) {
    stored *from = of_handle(handle.__handle);
    free(from->name);
    free(from->shape);
    free(from->data);
    from->is_live = false;
}

/* Returns the number of elements, or -1 if it is not one. */
static int64_t elements_of(const bindings_list_s64_t *shape) {
    int64_t elements = 1;
    for (size_t at = 0; at < shape->len; at++)
        if (shape->ptr[at] < 0 || __builtin_mul_overflow(elements, shape->ptr[at], &elements)) return -1;
    return elements;
}

/* Returns whether the data has as many elements of the datatype BYTES. */
static bool are_bytes(const bindings_list_u8_t *data, int64_t elements) {
    size_t at = 0;
    for (; elements > 0; elements--) {
        if (data->len - at < 4) return false;
        const uint8_t *length = data->ptr + at;
        at += 4;
        size_t bytes = length[0] | (size_t)length[1] << 8 | (size_t)length[2] << 16 | (size_t)length[3] << 24;
        if (data->len - at < bytes) return false;
        at += bytes;
    }
    return at == data->len;
}

static bool refuse(const char *message, hostler_plugin_types_error_t *fault) {
    hostler_error error = {HOSTLER_INVALID_INPUT, message, NULL};
    hostler_give_error(&error, "", fault);
    return false;
}

bool hostler_plugin_types_static_tensor_create(bindings_string_t *name,
                                               hostler_plugin_types_datatype_t datatype,
                                               bindings_list_s64_t *shape, bindings_list_u8_t *data,
                                               hostler_plugin_types_own_tensor_t *result,
                                               hostler_plugin_types_error_t *fault) {
    static const int64_t sizes[] = {1, 1, 2, 4, 8, 1, 2, 4, 8, 2, 2, 4, 8};
    int64_t elements = elements_of(shape), bytes;
    if (elements < 0) return refuse("the shape is not valid", fault);
    if (datatype == HOSTLER_BYTES) {
        if (!are_bytes(data, elements)) return refuse("the elements of BYTES are not well-formed", fault);
    } else if (__builtin_mul_overflow(elements, sizes[datatype], &bytes) || (uint64_t)bytes != data->len) {
        return refuse(hostler_text("the shape has %lld elements, and the data %zu bytes", (long long)elements,
                                   data->len),
                      fault);
    }
    result->__handle =
        store((char *)name->ptr, name->len, datatype, shape->ptr, shape->len, data->ptr, data->len);
    return true;
}

void hostler_plugin_types_method_tensor_name(hostler_plugin_types_borrow_tensor_t self,
                                             bindings_string_t *result) {
    const char *name = of_handle(self.__handle)->name;
    *result = (bindings_string_t){returned(name, strlen(name)), strlen(name)};
}

hostler_plugin_types_datatype_t
hostler_plugin_types_method_tensor_datatype(hostler_plugin_types_borrow_tensor_t self) {
    return (hostler_plugin_types_datatype_t)of_handle(self.__handle)->datatype;
}

void hostler_plugin_types_method_tensor_shape(hostler_plugin_types_borrow_tensor_t self,
                                              bindings_list_s64_t *result) {
    stored *from = of_handle(self.__handle);
    *result = (bindings_list_s64_t){(int64_t *)(void *)returned(from->shape, from->rank * sizeof(int64_t)),
                                    from->rank};
}

uint64_t hostler_plugin_types_method_tensor_byte_length(hostler_plugin_types_borrow_tensor_t self) {
    return of_handle(self.__handle)->bytes;
}

void hostler_plugin_types_method_tensor_read(hostler_plugin_types_borrow_tensor_t self, uint64_t offset,
                                             uint64_t length, bindings_list_u8_t *result) {
    stored *from = of_handle(self.__handle);
    size_t start = offset < from->bytes ? (size_t)offset : from->bytes;
    size_t bytes = length < from->bytes - start ? (size_t)length : from->bytes - start;
    *result = (bindings_list_u8_t){returned(from->data + start, bytes), bytes};
}

hostler_plugin_types_own_tensor_t
hostler_plugin_types_method_tensor_renamed(hostler_plugin_types_borrow_tensor_t self,
                                           bindings_string_t *name) {
    stored from = *of_handle(self.__handle);
    return (hostler_plugin_types_own_tensor_t){store((char *)name->ptr, name->len, from.datatype, from.shape,
                                                     from.rank, from.data, from.bytes)};
}

bool hostler_plugin_types_method_tensor_reshaped(hostler_plugin_types_borrow_tensor_t self,
                                                 bindings_list_s64_t *shape,
                                                 hostler_plugin_types_own_tensor_t *result,
                                                 hostler_plugin_types_error_t *fault) {
    stored from = *of_handle(self.__handle);
    bindings_list_s64_t before = {from.shape, from.rank};
    if (elements_of(shape) != elements_of(&before))
        return refuse("the shape has another number of elements", fault);
    result->__handle =
        store(from.name, strlen(from.name), from.datatype, shape->ptr, shape->len, from.data, from.bytes);
    return true;
}

hostler_plugin_types_own_tensor_t *stand_in_lend(const hostler_tensors *list) {
    hostler_plugin_types_own_tensor_t *items = NULL;
    if (list->count) items = hostler_own(list->count, sizeof *items);
    for (size_t at = 0; at < list->count; at++) {
        if (!list->items[at]) stand_in_trap("a list of tensors has NULL");
        items[at].__handle = same(list->items[at]->handle);
    }
    return items;
}
