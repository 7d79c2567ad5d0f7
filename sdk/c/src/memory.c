/* Memory of the current call, texts and errors. */
#include "internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The bindings refer to an object file with the type of the world, which the SDK does not need. */
void __component_type_object_force_link_bindings(void) {}

/* Allocations up to this size share chunks. */
#define SMALL 1024
#define CHUNK 16384

typedef struct kept_item {
    void *item;
    void (*release)(void *);
} kept_item;

static kept_item *kept;
static size_t kept_count, kept_capacity;
/* The free end of the newest chunk. */
static char *chunk;
static size_t chunk_left;

static void out_of_memory(size_t count, size_t size) {
    fprintf(stderr, "out of memory: cannot allocate %zu * %zu bytes\n", count, size);
    abort();
}

void *hostler_own(size_t count, size_t size) {
    void *memory = calloc(count ? count : 1, size ? size : 1);
    if (!memory) out_of_memory(count, size);
    return memory;
}

void *hostler_grow(void *items, size_t count, size_t *capacity, size_t size) {
    if (count < *capacity) return items;
    size_t wanted = *capacity ? *capacity * 2 : 8;
    if (wanted > SIZE_MAX / size) out_of_memory(wanted, size);
    items = realloc(items, wanted * size);
    if (!items) out_of_memory(wanted, size);
    *capacity = wanted;
    return items;
}

void hostler_keep(void *item, void (*release)(void *)) {
    kept = hostler_grow(kept, kept_count, &kept_capacity, sizeof *kept);
    kept[kept_count++] = (kept_item){item, release};
}

hostler_scope hostler_scope_begin(void) {
    return (hostler_scope){kept_count, chunk, chunk_left};
}

void hostler_scope_end(hostler_scope scope) {
    while (kept_count > scope.kept) {
        kept_item last = kept[--kept_count];
        last.release(last.item);
    }
    chunk = scope.chunk;
    chunk_left = scope.chunk_left;
    /* Nothing else does it, since a plugin does not end. */
    fflush(stdout);
}

void *hostler_alloc(size_t count, size_t size) {
    if (size && count > (SIZE_MAX - 16) / size) out_of_memory(count, size);
    size_t bytes = (count * size + 7) / 8 * 8;
    if (bytes == 0) bytes = 8;
    if (bytes > SMALL) {
        void *memory = hostler_own(count, size);
        hostler_keep(memory, free);
        return memory;
    }
    if (bytes > chunk_left) {
        chunk = hostler_own(CHUNK, 1);
        chunk_left = CHUNK;
        hostler_keep(chunk, free);
    }
    char *memory = chunk;
    chunk += bytes;
    chunk_left -= bytes;
    /* An earlier scope may have used it. */
    return memset(memory, 0, bytes);
}

/* ---- Texts ---- */

const char *hostler_format(const char *format, va_list values) {
    va_list again;
    va_copy(again, values);
    int length = vsnprintf(NULL, 0, format, values);
    char *text = hostler_alloc(length < 0 ? 1 : (size_t)length + 1, 1);
    if (length > 0) vsnprintf(text, (size_t)length + 1, format, again);
    va_end(again);
    return text;
}

const char *hostler_text(const char *format, ...) {
    va_list values;
    va_start(values, format);
    const char *text = hostler_format(format, values);
    va_end(values);
    return text;
}

char *hostler_taken(uint8_t *data, size_t length) {
    /* An empty list has no memory. */
    char *text = realloc(length ? data : NULL, length + 1);
    if (!text) out_of_memory(length, 1);
    text[length] = 0;
    hostler_keep(text, free);
    return text;
}

const char *hostler_from_host(bindings_string_t text) {
    return hostler_taken(text.ptr, text.len);
}

/* Returns the length of the UTF-8 sequence at `text`, or 0 if there is none. */
static size_t sequence(const unsigned char *text, size_t left) {
    unsigned char first = text[0];
    if (first < 0x80) return 1;
    size_t length = first >= 0xc2 && first < 0xe0 ? 2 : first >= 0xe0 && first < 0xf0 ? 3
                  : first >= 0xf0 && first < 0xf5 ? 4 : 0;
    if (length == 0 || length > left) return 0;
    for (size_t at = 1; at < length; at++)
        if ((text[at] & 0xc0) != 0x80) return 0;
    /* Overlong forms, surrogates, and numbers above 10FFFF. */
    if ((first == 0xe0 && text[1] < 0xa0) || (first == 0xed && text[1] > 0x9f)) return 0;
    if ((first == 0xf0 && text[1] < 0x90) || (first == 0xf4 && text[1] > 0x8f)) return 0;
    return length;
}

bindings_string_t hostler_bytes_to_host(const char *text, size_t length) {
    char *replaced = NULL;
    for (size_t at = 0; at < length;) {
        size_t step = sequence((const unsigned char *)text + at, length - at);
        if (step == 0) {
            if (!replaced) replaced = memcpy(hostler_alloc(length + 1, 1), text, length);
            replaced[at] = '?';
        }
        at += step ? step : 1;
    }
    return (bindings_string_t){(uint8_t *)(uintptr_t)(replaced ? replaced : text), length};
}

bindings_string_t hostler_to_host(const char *text) {
    return hostler_bytes_to_host(text ? text : "", text ? strlen(text) : 0);
}

bindings_string_t hostler_given(const char *text) {
    return hostler_given_bytes(text ? text : "", text ? strlen(text) : 0);
}

bindings_string_t hostler_given_bytes(const char *text, size_t length) {
    bindings_string_t borrowed = hostler_bytes_to_host(text, length);
    bindings_string_t given = {NULL, borrowed.len};
    if (borrowed.len) given.ptr = memcpy(hostler_own(borrowed.len, 1), borrowed.ptr, borrowed.len);
    return given;
}

/* ---- Errors ---- */

static bool set_error(hostler_error *error, hostler_error_kind kind, const char *field,
                      const char *format, va_list values) {
    if (!error) return false;
    /* The texts may be those of the error that is replaced. */
    const char *message = hostler_format(format, values);
    const char *copy = field ? hostler_text("%s", field) : NULL;
    *error = (hostler_error){kind, message, copy};
    return false;
}

bool hostler_fail(hostler_error *error, hostler_error_kind kind, const char *format, ...) {
    va_list values;
    va_start(values, format);
    set_error(error, kind, NULL, format, values);
    va_end(values);
    return false;
}

bool hostler_invalid(hostler_error *error, const char *field, const char *format, ...) {
    va_list values;
    va_start(values, format);
    set_error(error, HOSTLER_INVALID_INPUT, field, format, values);
    va_end(values);
    return false;
}

bool hostler_take_error(hostler_plugin_types_error_t *from, hostler_error *error) {
    const char *message = hostler_from_host(from->message);
    const char *field = from->field.is_some ? hostler_from_host(from->field.val) : NULL;
    if (error) *error = (hostler_error){(hostler_error_kind)from->kind, message, field};
    return false;
}

void hostler_give_error(const hostler_error *error, const char *function,
                        hostler_plugin_types_error_t *to) {
    memset(to, 0, sizeof *to);
    to->kind = (hostler_plugin_types_error_kind_t)error->kind;
    if (!error->message) {
        to->kind = HOSTLER_PLUGIN_TYPES_ERROR_KIND_FAILED;
        to->message = hostler_given(hostler_text(
            "%s returned false without an error; set one with hostler_fail or hostler_invalid", function));
        return;
    }
    to->message = hostler_given(error->message);
    if (error->field) {
        to->field.is_some = true;
        to->field.val = hostler_given(error->field);
    }
}
