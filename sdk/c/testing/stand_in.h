/* What the files of the stand-in share. */
#ifndef HOSTLER_STAND_IN_H
#define HOSTLER_STAND_IN_H

#include "../hostler_testing.h"
#include "../src/internal.h"

/* A value under a name: of the configuration, an asset, a parameter, the state, a metric. */
typedef struct entry {
    struct entry *next;
    char *name;
    uint8_t *data;
    size_t length;
    hostler_plugin_types_parameter_t parameter;
    double number;
    int64_t counter;
    testing_function *function;
} entry;

typedef struct stand_in {
    entry *config, *assets, *parameters, *models, *values, *counters, *metrics;
    char *log;
    hostler_slice note;
    bool has_time_left, is_cancelled;
    uint64_t time_left;
    hostler_tensors answer;
} stand_in;

extern stand_in standing;

/* Ends the test, as a trap ends the plugin. */
_Noreturn void stand_in_trap(const char *format, ...) HOSTLER_PRINTF(1, 2);
entry *stand_in_find(entry *list, const char *name, size_t length);
/* Finds an entry, or adds an empty one. */
entry *stand_in_entry(entry **list, const char *name, size_t length);
void stand_in_set_data(entry *entry, const void *data, size_t length);

/* Hands a tensor of the test to the plugin: another handle to the same data. */
hostler_plugin_types_own_tensor_t *stand_in_lend(const hostler_tensors *tensors);
/* A handle to a model that a function answers for. */
int32_t stand_in_callable(const char *name, testing_function *function);
/* Takes over the outcome of a function of the plugin. */
void stand_in_forget_calls(void);
bool stand_in_outcome(bool is_ok, hostler_plugin_types_own_tensor_t *items, size_t count,
                      hostler_plugin_types_error_t *fault, hostler_tensors *outputs, hostler_error *error);

#endif
