/* Tests: their beginning, end, checks and settings. */
#include "stand_in.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *test_name = "";
static unsigned checks_run, checks_failed;
static hostler_scope test_scope;

static void free_entries(entry **list) {
    while (*list) {
        entry *first = *list;
        *list = first->next;
        free(first->name);
        free(first->data);
        free(first);
    }
}

static void forget(void) {
    hostler_scope_end(test_scope);
    for (size_t at = 0; at < standing.answer.count; at++) {
        int32_t handle = standing.answer.items[at]->handle;
        hostler_plugin_types_tensor_drop_own((hostler_plugin_types_own_tensor_t){handle});
        free(standing.answer.items[at]);
    }
    free(standing.answer.items);
    entry **lists[] = {&standing.config, &standing.assets,   &standing.parameters, &standing.models,
                       &standing.values, &standing.counters, &standing.metrics};
    for (size_t at = 0; at < sizeof lists / sizeof *lists; at++) free_entries(lists[at]);
    free(standing.log);
    free((char *)standing.note.data);
    standing = (stand_in){0};
    stand_in_forget_calls();
}

void testing_begin(const char *name) {
    forget();
    test_name = name;
}

int testing_end(void) {
    forget();
    printf("%u checks, %u failed\n", checks_run, checks_failed);
    return checks_failed > 0;
}

bool testing_check(bool is_true, const char *condition, const char *file, int line) {
    checks_run++;
    if (is_true) return true;
    checks_failed++;
    fprintf(stderr, "%s:%d: %s: failed: %s\n", file, line, test_name, condition);
    return false;
}

bool testing_check_text(const char *found, const char *expected, const char *what, const char *file,
                        int line) {
    bool is_equal = found && strcmp(found, expected) == 0;
    if (!testing_check(is_equal, what, file, line))
        fprintf(stderr, "  expected \"%s\"\n  got      \"%s\"\n", expected, found ? found : "NULL");
    return is_equal;
}

/* ---- Settings ---- */

void testing_config(const char *key, const char *value) {
    stand_in_set_data(stand_in_entry(&standing.config, key, strlen(key)), value, strlen(value));
}

void testing_asset(const char *name, const void *data, size_t length) {
    stand_in_set_data(stand_in_entry(&standing.assets, name, strlen(name)), data, length);
}

static hostler_plugin_types_parameter_t *set_parameter(const char *name, uint8_t tag) {
    entry *found = stand_in_entry(&standing.parameters, name, strlen(name));
    found->parameter.tag = tag;
    return &found->parameter;
}

void testing_flag(const char *parameter, bool value) {
    set_parameter(parameter, HOSTLER_PLUGIN_TYPES_PARAMETER_BOOLEAN)->val.boolean = value;
}

void testing_integer(const char *parameter, int64_t value) {
    set_parameter(parameter, HOSTLER_PLUGIN_TYPES_PARAMETER_INTEGER)->val.integer = value;
}

void testing_number(const char *parameter, double value) {
    set_parameter(parameter, HOSTLER_PLUGIN_TYPES_PARAMETER_NUMBER)->val.number = value;
}

void testing_string(const char *parameter, const char *value) {
    set_parameter(parameter, HOSTLER_PLUGIN_TYPES_PARAMETER_TEXT);
    stand_in_set_data(stand_in_entry(&standing.parameters, parameter, strlen(parameter)), value, strlen(value));
}

void testing_time_left(uint64_t ms) {
    standing.has_time_left = true;
    standing.time_left = ms;
}

void testing_cancel(void) {
    standing.is_cancelled = true;
}

void testing_model(const char *name, testing_function *function) {
    stand_in_entry(&standing.models, name, strlen(name))->function = function;
}

/* ---- What the plugin has done ---- */

size_t testing_calls(const char *model) {
    entry *found = stand_in_find(standing.models, model, strlen(model));
    return found ? (size_t)found->counter : 0;
}

double testing_metric(const char *name) {
    entry *found = stand_in_find(standing.metrics, name, strlen(name));
    return found ? found->number : 0;
}

const char *testing_log(void) {
    return standing.log ? standing.log : "";
}

const hostler_tensors *testing_answer(void) {
    return &standing.answer;
}

/* ---- Runs ---- */

bool stand_in_outcome(bool is_ok, hostler_plugin_types_own_tensor_t *items, size_t count,
                      hostler_plugin_types_error_t *fault, hostler_tensors *outputs, hostler_error *error) {
    if (is_ok) {
        hostler_take_tensors(items, count, outputs);
        return true;
    }
    return hostler_take_error(fault, error);
}
