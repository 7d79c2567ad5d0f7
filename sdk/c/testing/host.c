/* Assets, configuration, log, state, metrics and requests of the stand-in. */
#include "stand_in.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

stand_in standing;

void stand_in_trap(const char *format, ...) {
    va_list values;
    va_start(values, format);
    fprintf(stderr, "the plugin would trap: %s\n", hostler_format(format, values));
    va_end(values);
    abort();
}

/* ---- Entries ---- */

entry *stand_in_find(entry *list, const char *name, size_t length) {
    while (list && (strlen(list->name) != length || memcmp(list->name, name, length) != 0)) list = list->next;
    return list;
}

entry *stand_in_entry(entry **list, const char *name, size_t length) {
    entry *found = stand_in_find(*list, name, length);
    if (found) return found;
    found = hostler_own(1, sizeof *found);
    found->name = hostler_own(length + 1, 1);
    if (length) memcpy(found->name, name, length);
    found->next = *list;
    return *list = found;
}

void stand_in_set_data(entry *entry, const void *data, size_t length) {
    uint8_t *copy = hostler_own(length + 1, 1);
    if (length) memcpy(copy, data, length);
    free(entry->data);
    entry->data = copy;
    entry->length = length;
}

static entry *named(entry *list, const bindings_string_t *name) {
    return stand_in_find(list, (const char *)name->ptr, name->len);
}

static entry *added(entry **list, const bindings_string_t *name) {
    return stand_in_entry(list, (const char *)name->ptr, name->len);
}

/* A list as the host returns it: an empty one has no memory. */
static uint8_t *given_data(const void *data, size_t bytes) {
    return bytes ? memcpy(hostler_own(bytes, 1), data, bytes) : NULL;
}

static bindings_string_t given_text(const entry *found) {
    return (bindings_string_t){given_data(found->data, found->length), found->length};
}

/* ---- Assets, configuration, log ---- */

bool hostler_plugin_assets_read(bindings_string_t *name, uint64_t offset, uint64_t length,
                                bindings_list_u8_t *result, hostler_plugin_assets_error_t *fault) {
    entry *found = named(standing.assets, name);
    if (!found) {
        hostler_error error = {HOSTLER_NOT_FOUND, "there is no such asset", NULL};
        hostler_give_error(&error, "", fault);
        return false;
    }
    size_t start = offset < found->length ? (size_t)offset : found->length;
    size_t bytes = length < found->length - start ? (size_t)length : found->length - start;
    *result = (bindings_list_u8_t){given_data(found->data + start, bytes), bytes};
    return true;
}

bool wasi_config_store_get(bindings_string_t *key, bindings_option_string_t *result,
                           wasi_config_store_error_t *fault) {
    (void)fault;
    entry *found = named(standing.config, key);
    result->is_some = found;
    if (found) result->val = given_text(found);
    return true;
}

void wasi_logging_logging_log(wasi_logging_logging_level_t level, bindings_string_t *context,
                              bindings_string_t *message) {
    (void)level, (void)context;
    size_t before = standing.log ? strlen(standing.log) : 0;
    char *log = hostler_own(before + message->len + 2, 1);
    if (before) memcpy(log, standing.log, before);
    if (message->len) memcpy(log + before, message->ptr, message->len);
    log[before + message->len] = '\n';
    free(standing.log);
    standing.log = log;
}

/* ---- State and metrics ---- */

bool hostler_plugin_state_get(bindings_string_t *key, bindings_list_u8_t *result) {
    entry *found = named(standing.values, key);
    if (!found || !found->data) return false;
    *result = (bindings_list_u8_t){given_data(found->data, found->length), found->length};
    return true;
}

bool hostler_plugin_state_set(bindings_string_t *key, bindings_list_u8_t *value, uint64_t *ttl_ms,
                              hostler_plugin_state_error_t *fault) {
    (void)ttl_ms, (void)fault;
    stand_in_set_data(added(&standing.values, key), value->ptr, value->len);
    return true;
}

bool hostler_plugin_state_delete(bindings_string_t *key) {
    entry *found = named(standing.values, key);
    bool is_there = found && found->data;
    if (is_there) {
        free(found->data);
        found->data = NULL;
    }
    return is_there;
}

int64_t hostler_plugin_state_add(bindings_string_t *counter, int64_t delta) {
    entry *found = added(&standing.counters, counter);
    if (__builtin_add_overflow(found->counter, delta, &found->counter))
        found->counter = delta < 0 ? INT64_MIN : INT64_MAX;
    return found->counter;
}

static entry *metric(bindings_string_t *name) {
    bool is_name = name->len >= 1 && name->len <= 64;
    for (size_t at = 0; at < name->len; at++) {
        uint8_t letter = name->ptr[at];
        is_name = is_name && ((letter >= 'a' && letter <= 'z') || (letter >= 'A' && letter <= 'Z') ||
                              (letter >= '0' && letter <= '9') || letter == '_');
    }
    if (!is_name)
        stand_in_trap("\"%.*s\" is not a name of a metric: 1 to 64 letters, digits and '_'", (int)name->len,
                      (const char *)name->ptr);
    return added(&standing.metrics, name);
}

void hostler_plugin_metrics_count(bindings_string_t *name, uint64_t by) {
    metric(name)->number += (double)by;
}

void hostler_plugin_metrics_set(bindings_string_t *name, double value) {
    metric(name)->number = value;
}

/* ---- The request, of which there is one ---- */

void hostler_plugin_types_request_drop_own(hostler_plugin_types_own_request_t handle) {
    (void)handle;
}

#define TEXT_OF_STAND_IN(method, text)                                                               \
    void hostler_plugin_types_method_request_##method(hostler_plugin_types_borrow_request_t self,    \
                                                      bindings_string_t *result) {                   \
        (void)self;                                                                                  \
        *result = (bindings_string_t){given_data(text, strlen(text)), strlen(text)};                 \
    }

TEXT_OF_STAND_IN(id, "test")
TEXT_OF_STAND_IN(model, "model")
TEXT_OF_STAND_IN(version, "1")

bool hostler_plugin_types_method_request_time_left(hostler_plugin_types_borrow_request_t self,
                                                   uint64_t *result) {
    (void)self;
    *result = standing.time_left;
    return standing.has_time_left;
}

bool hostler_plugin_types_method_request_cancelled(hostler_plugin_types_borrow_request_t self) {
    (void)self;
    return standing.is_cancelled;
}

bool hostler_plugin_types_method_request_parameter(hostler_plugin_types_borrow_request_t self,
                                                   bindings_string_t *name,
                                                   hostler_plugin_types_parameter_t *result) {
    (void)self;
    entry *found = named(standing.parameters, name);
    if (!found) return false;
    *result = found->parameter;
    if (result->tag == HOSTLER_PLUGIN_TYPES_PARAMETER_TEXT) result->val.text = given_text(found);
    return true;
}

void hostler_plugin_types_method_request_note(hostler_plugin_types_borrow_request_t self,
                                              bindings_list_u8_t *result) {
    (void)self;
    *result = (bindings_list_u8_t){given_data(standing.note.data, standing.note.length), standing.note.length};
}

void hostler_plugin_types_method_request_set_note(hostler_plugin_types_borrow_request_t self,
                                                  bindings_list_u8_t *data) {
    (void)self;
    if (data->len > 1 << 20) stand_in_trap("a note of more than 1 MiB");
    free((char *)standing.note.data);
    standing.note = (hostler_slice){(char *)given_data(data->ptr, data->len), data->len};
}
