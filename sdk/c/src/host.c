/* Assets, configuration, log, state and metrics. */
#include "internal.h"

#include <stdlib.h>
#include <string.h>

hostler_slice hostler_asset(const char *name, hostler_error *error) {
    bindings_string_t text = hostler_to_host(name);
    hostler_plugin_assets_error_t fault;
    bindings_list_u8_t content;
    if (!hostler_plugin_assets_read(&text, 0, UINT64_MAX, &content, &fault)) {
        hostler_error found = {0};
        hostler_take_error(&fault, &found);
        /* A missing asset is the fault of the operator, not of the client. */
        hostler_fail(error, HOSTLER_FAILED, "cannot read the asset \"%s\": %s", name, found.message);
        return (hostler_slice){NULL, 0};
    }
    return (hostler_slice){hostler_taken(content.ptr, content.len), content.len};
}

const char *hostler_config(const char *key) {
    bindings_string_t text = hostler_to_host(key);
    bindings_option_string_t value;
    wasi_config_store_error_t fault;
    if (!wasi_config_store_get(&text, &value, &fault)) {
        hostler_from_host(fault.val.upstream);
        return NULL;
    }
    return value.is_some ? hostler_from_host(value.val) : NULL;
}

bool hostler_config_number(const char *key, double *value, double least, double most,
                           hostler_error *error) {
    const char *text = hostler_config(key);
    if (!text) return true;
    char *end;
    double number = strtod(text, &end);
    if (end != text && *end == 0 && number >= least && number <= most) {
        *value = number;
        return true;
    }
    return hostler_fail(error, HOSTLER_FAILED, "config %s = \"%s\": expected a number from %g to %g", key,
                        text, least, most);
}

void hostler_log(hostler_level level, const char *format, ...) {
    static const wasi_logging_logging_level_t levels[] = {
        WASI_LOGGING_LOGGING_LEVEL_DEBUG, WASI_LOGGING_LOGGING_LEVEL_INFO, WASI_LOGGING_LOGGING_LEVEL_WARN,
        WASI_LOGGING_LOGGING_LEVEL_ERROR};
    va_list values;
    va_start(values, format);
    bindings_string_t context = hostler_to_host(""), line = hostler_to_host(hostler_format(format, values));
    va_end(values);
    wasi_logging_logging_log(levels[level], &context, &line);
}

/* ---- State ---- */

hostler_slice hostler_state_get(const char *key) {
    bindings_string_t text = hostler_to_host(key);
    bindings_list_u8_t value;
    if (!hostler_plugin_state_get(&text, &value)) return (hostler_slice){NULL, 0};
    return (hostler_slice){hostler_taken(value.ptr, value.len), value.len};
}

bool hostler_state_set(const char *key, const void *data, size_t length, uint64_t ttl_ms,
                       hostler_error *error) {
    bindings_string_t text = hostler_to_host(key);
    bindings_list_u8_t value = {(uint8_t *)(uintptr_t)data, length};
    hostler_plugin_state_error_t fault;
    if (hostler_plugin_state_set(&text, &value, ttl_ms ? &ttl_ms : NULL, &fault)) return true;
    return hostler_take_error(&fault, error);
}

bool hostler_state_delete(const char *key) {
    bindings_string_t text = hostler_to_host(key);
    return hostler_plugin_state_delete(&text);
}

int64_t hostler_state_add(const char *counter, int64_t delta) {
    bindings_string_t text = hostler_to_host(counter);
    return hostler_plugin_state_add(&text, delta);
}

/* ---- Metrics ---- */

void hostler_count(const char *name, uint64_t by) {
    bindings_string_t text = hostler_to_host(name);
    hostler_plugin_metrics_count(&text, by);
}

void hostler_gauge(const char *name, double value) {
    bindings_string_t text = hostler_to_host(name);
    hostler_plugin_metrics_set(&text, value);
}
