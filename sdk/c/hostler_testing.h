/* Unit tests of a plugin, on the machine of its author and without a host. Compile the plugin, the
 * test and the stand-in of the plugin's role, which is a model here, for your own machine:
 *
 *     cc -I sdk test.c app.c sdk/testing/model.c -lm -o build/test && build/test
 *
 * The stand-in keeps tensors, parameters, assets, configuration and metrics in memory, and answers for
 * models with functions. Limits of memory and time are not enforced; what traps in a host ends the
 * test. What tests receive is valid until the next `testing_begin`. */
#ifndef HOSTLER_TESTING_H
#define HOSTLER_TESTING_H

#include "hostler.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Begins a test: forgets all that earlier tests have set, and frees all that they have received. */
void testing_begin(const char *name);
/* Prints how many checks have failed. Returns the exit code of the program: 0 if it is none. */
int testing_end(void);

/* Counts and prints a failed check; the test goes on. */
#define CHECK(condition) testing_check(condition, #condition, __FILE__, __LINE__)
#define CHECK_TEXT(found, expected) testing_check_text(found, expected, #found, __FILE__, __LINE__)
bool testing_check(bool is_true, const char *condition, const char *file, int line);
bool testing_check_text(const char *found, const char *expected, const char *what, const char *file,
                        int line);

/* ---- What the manifest and the client set ---- */

void testing_config(const char *key, const char *value);
void testing_asset(const char *name, const void *data, size_t length);
void testing_flag(const char *parameter, bool value);
void testing_integer(const char *parameter, int64_t value);
void testing_number(const char *parameter, double value);
void testing_string(const char *parameter, const char *value);
/* Sets what hostler_time_left and hostler_cancelled return. */
void testing_time_left(uint64_t ms);
void testing_cancel(void);

/* Answers for a model; returns false after it has set the error. Calls end immediately. */
typedef bool testing_function(const hostler_tensors *inputs, hostler_tensors *outputs,
                              hostler_error *error);
/* Adds a model that hostler_model finds. */
void testing_model(const char *name, testing_function *function);

/* ---- Runs of the plugin: true, or false after they have set the error ---- */

/* Role `model`: checks the inputs and the outputs against plugin_metadata, as the host does. */
bool testing_predict(const hostler_tensors *inputs, hostler_tensors *outputs, hostler_error *error);
/* Role `transformer`. */
bool testing_preprocess(const char *json, hostler_tensors *inputs, hostler_error *error);
bool testing_preprocess_bytes(const char *content_type, const void *data, size_t length,
                              hostler_tensors *inputs, hostler_error *error);
bool testing_postprocess(const hostler_tensors *outputs, hostler_payload *answer, hostler_error *error);
/* Preprocess, the model, and postprocess. */
bool testing_transform(const char *json, testing_function *model, hostler_payload *answer,
                       hostler_error *error);
/* Role `executor`. */
bool testing_submit(const hostler_tensors *inputs, testing_function *model, hostler_tensors *outputs,
                    hostler_error *error);

/* ---- What the plugin has done ---- */

/* Returns how often a model was called; that of testing_submit is named "model". */
size_t testing_calls(const char *model);
/* Returns what hostler_count and hostler_gauge have set, or 0. */
double testing_metric(const char *name);
/* Returns the lines of hostler_log. */
const char *testing_log(void);
/* Returns what hostler_answer_now has sent; without elements if it was not called. */
const hostler_tensors *testing_answer(void);

#ifdef __cplusplus
}
#endif

#endif
