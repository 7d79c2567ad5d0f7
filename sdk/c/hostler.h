/* The C SDK of Hostler. `docs/reference/sdk-c.md` lists all of it on one page.
 *
 * Memory: everything that a function of this header returns (texts, arrays, tensors, JSON values)
 * belongs to the SDK. It is valid until the function of the plugin that received or created it
 * returns, and the SDK frees it then. A plugin never frees anything, and must not keep such a
 * pointer in a static variable. For memory that outlives a call, use malloc.
 *
 * Errors: a function that can fail has a last parameter `error`. It returns false or NULL after it
 * has set the error. Functions accept NULL for a tensor that an earlier call failed to return: they
 * then fail and leave the error as it is. So several calls can be chained, and only the last result
 * must be checked. `error` may be NULL if the reason does not matter.
 *
 * Texts are UTF-8 and end with a NUL byte. Bytes that are not UTF-8 are replaced by '?' when a text
 * goes to the host. */
#ifndef HOSTLER_H
#define HOSTLER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define HOSTLER_PRINTF(text, values) __attribute__((format(printf, text, values)))

/* ---- Types ---- */

typedef enum hostler_error_kind {
    HOSTLER_INVALID_INPUT,
    HOSTLER_NOT_FOUND,
    HOSTLER_UNSUPPORTED,
    HOSTLER_TOO_LARGE,
    HOSTLER_OVERLOADED,
    HOSTLER_UNAVAILABLE,
    HOSTLER_DEADLINE,
    HOSTLER_CANCELLED,
    HOSTLER_FAILED
} hostler_error_kind;

/* No error as long as `message` is NULL. */
typedef struct hostler_error {
    hostler_error_kind kind;
    const char *message;
    /* The input field at fault, or NULL. */
    const char *field;
} hostler_error;

typedef enum hostler_datatype {
    HOSTLER_BOOL,
    HOSTLER_UINT8,
    HOSTLER_UINT16,
    HOSTLER_UINT32,
    HOSTLER_UINT64,
    HOSTLER_INT8,
    HOSTLER_INT16,
    HOSTLER_INT32,
    HOSTLER_INT64,
    HOSTLER_FP16,
    HOSTLER_BF16,
    HOSTLER_FP32,
    HOSTLER_FP64,
    HOSTLER_BYTES
} hostler_datatype;

/* An immutable tensor in the memory of the host. */
typedef struct hostler_tensor hostler_tensor;

typedef struct hostler_tensors {
    size_t count;
    hostler_tensor **items;
    /* Internal: the allocated length of `items`. */
    size_t capacity;
} hostler_tensors;

/* Bytes with a length. A NUL byte follows them, which `length` does not count. */
typedef struct hostler_slice {
    const char *data;
    size_t length;
} hostler_slice;

typedef enum hostler_payload_kind {
    HOSTLER_PAYLOAD_JSON,
    HOSTLER_PAYLOAD_BYTES,
    HOSTLER_PAYLOAD_TENSORS
} hostler_payload_kind;

/* What an application sent, or the answer that it receives. */
typedef struct hostler_payload {
    hostler_payload_kind kind;
    /* The text of one JSON value, or the bytes. */
    hostler_slice content;
    /* Of bytes. */
    const char *content_type;
    hostler_tensors tensors;
} hostler_payload;

typedef struct hostler_metadata hostler_metadata;
typedef struct hostler_request hostler_request;
typedef struct hostler_callable hostler_callable;
typedef struct hostler_invocation hostler_invocation;

/* ---- What a plugin defines ----
 *
 * The plugin defines the functions of its role. They return true, or false after they have set
 * `error`. Inputs and outputs stay the property of the SDK, so an input may be an output. A tensor
 * may be returned once; `hostler_renamed` gives the same data under another name. */

/* Roles `model` and `transformer`: describes inputs and outputs with `hostler_input` and
 * `hostler_output`. A model must define it. A transformer that does not define it, or adds nothing,
 * has the metadata of its model. Called once, at load. */
void plugin_metadata(hostler_metadata *metadata);

/* Role `model`. */
bool plugin_predict(hostler_request *request, hostler_tensors *inputs, hostler_tensors *outputs,
                    hostler_error *error);

/* Role `transformer`: adds the inputs of the model to `inputs`. */
bool plugin_preprocess(hostler_request *request, hostler_payload *payload, hostler_tensors *inputs,
                       hostler_error *error);

/* Role `transformer`: sets `answer` with one of the functions `hostler_answer_...`. Called once for
 * each response of the model. */
bool plugin_postprocess(hostler_request *request, hostler_tensors *outputs, hostler_payload *answer,
                        hostler_error *error);

/* Role `executor`: answers one request, with calls to `model`. */
bool plugin_submit(hostler_request *request, hostler_tensors *inputs, hostler_callable *model,
                   hostler_tensors *outputs, hostler_error *error);

/* ---- Memory and texts ---- */

/* Returns `count * size` bytes of zeros. Traps if there is not as much memory. */
void *hostler_alloc(size_t count, size_t size);
/* Returns a text that is formatted as by printf. */
const char *hostler_text(const char *format, ...) HOSTLER_PRINTF(1, 2);

/* ---- Errors: all return false, so that `return hostler_fail(...)` ends a function ---- */

bool hostler_fail(hostler_error *error, hostler_error_kind kind, const char *format, ...)
    HOSTLER_PRINTF(3, 4);
/* Sets `invalid-input` with the field at fault. */
bool hostler_invalid(hostler_error *error, const char *field, const char *format, ...)
    HOSTLER_PRINTF(3, 4);

/* ---- Metadata: -1 in `shape` is a free dimension; `rank` is the number of dimensions ---- */

void hostler_input(hostler_metadata *metadata, const char *name, hostler_datatype datatype,
                   const int64_t *shape, size_t rank);
void hostler_output(hostler_metadata *metadata, const char *name, hostler_datatype datatype,
                    const int64_t *shape, size_t rank);

/* ---- Tensors ---- */

/* Creates a tensor from bytes, and copies them to the host. Fails with `invalid-input` if they do
 * not fit the shape and the datatype. */
hostler_tensor *hostler_tensor_create(const char *name, hostler_datatype datatype, const int64_t *shape,
                                      size_t rank, const void *data, size_t bytes, hostler_error *error);

/* Create a tensor from `count` elements. Fail with `invalid-input` if the shape has another number
 * of elements. */
#define HOSTLER_CREATE(function, element)                                                            \
    hostler_tensor *function(const char *name, const int64_t *shape, size_t rank,                    \
                             const element *elements, size_t count, hostler_error *error)
HOSTLER_CREATE(hostler_boolean, bool);
HOSTLER_CREATE(hostler_uint8, uint8_t);
HOSTLER_CREATE(hostler_uint16, uint16_t);
HOSTLER_CREATE(hostler_uint32, uint32_t);
HOSTLER_CREATE(hostler_uint64, uint64_t);
HOSTLER_CREATE(hostler_int8, int8_t);
HOSTLER_CREATE(hostler_int16, int16_t);
HOSTLER_CREATE(hostler_int32, int32_t);
HOSTLER_CREATE(hostler_int64, int64_t);
HOSTLER_CREATE(hostler_fp32, float);
HOSTLER_CREATE(hostler_fp64, double);
/* Rounds to the nearest value, halves to the even one. */
HOSTLER_CREATE(hostler_fp16, float);
HOSTLER_CREATE(hostler_bf16, float);
/* The datatype BYTES. */
HOSTLER_CREATE(hostler_bytes, hostler_slice);

/* Copy the elements of a tensor of exactly this datatype, and set `count`. The plugin may change the
 * copy. Fail with `failed` for another datatype. */
#define HOSTLER_READ(function, element)                                                              \
    element *function(hostler_tensor *tensor, size_t *count, hostler_error *error)
HOSTLER_READ(hostler_to_bool, bool);
HOSTLER_READ(hostler_to_u8, uint8_t);
HOSTLER_READ(hostler_to_u16, uint16_t);
HOSTLER_READ(hostler_to_u32, uint32_t);
HOSTLER_READ(hostler_to_u64, uint64_t);
HOSTLER_READ(hostler_to_i8, int8_t);
HOSTLER_READ(hostler_to_i16, int16_t);
HOSTLER_READ(hostler_to_i32, int32_t);
HOSTLER_READ(hostler_to_i64, int64_t);
HOSTLER_READ(hostler_to_f32, float);
HOSTLER_READ(hostler_to_f64, double);
/* Of FP16, BF16 or FP32. */
HOSTLER_READ(hostler_to_floats, float);
HOSTLER_READ(hostler_to_bytes, hostler_slice);

const char *hostler_name(hostler_tensor *tensor);
hostler_datatype hostler_type(hostler_tensor *tensor);
/* Returns the dimensions, of which there are `hostler_rank`. */
const int64_t *hostler_shape(hostler_tensor *tensor);
size_t hostler_rank(hostler_tensor *tensor);
/* Returns the number of bytes of the data. */
uint64_t hostler_byte_length(hostler_tensor *tensor);
/* Copies `length` bytes from `offset`, or fewer if the tensor ends before; sets `read` to how many. */
uint8_t *hostler_read(hostler_tensor *tensor, uint64_t offset, uint64_t length, size_t *read);
/* Returns the same data under another name. */
hostler_tensor *hostler_renamed(hostler_tensor *tensor, const char *name);
/* Returns the same data in another shape with the same number of elements. */
hostler_tensor *hostler_reshaped(hostler_tensor *tensor, const int64_t *shape, size_t rank,
                                 hostler_error *error);
/* Returns `FP32 [1,18]`. */
const char *hostler_described(hostler_tensor *tensor);
/* Returns `FP32`. */
const char *hostler_datatype_name(hostler_datatype datatype);

/* Adds a tensor to a list. Returns false for NULL. */
bool hostler_push(hostler_tensors *tensors, hostler_tensor *tensor);
/* Finds a tensor. Fails with `failed`, and names the tensors that there are. */
hostler_tensor *hostler_named(const hostler_tensors *tensors, const char *name, hostler_error *error);

/* ---- Answers of a transformer ---- */

/* `format` and what follows must give one JSON value; see `hostler_json_quote`. Returns true. */
bool hostler_answer_json(hostler_payload *answer, const char *format, ...) HOSTLER_PRINTF(2, 3);
bool hostler_answer_bytes(hostler_payload *answer, const char *content_type, const void *data,
                          size_t length);
bool hostler_answer_tensor(hostler_payload *answer, hostler_tensor *tensor);

/* ---- JSON ---- */

typedef enum hostler_json_kind {
    HOSTLER_JSON_NULL,
    HOSTLER_JSON_BOOL,
    HOSTLER_JSON_NUMBER,
    HOSTLER_JSON_TEXT,
    HOSTLER_JSON_ARRAY,
    HOSTLER_JSON_OBJECT
} hostler_json_kind;

typedef struct hostler_json {
    hostler_json_kind kind;
    /* The next element or member, or NULL. */
    struct hostler_json *next;
    /* Of a member: its name. Otherwise empty. */
    hostler_slice name;
    union {
        bool boolean;
        /* Infinite if it is too large for a double, such as 1e400. */
        double number;
        hostler_slice text;
        /* Of an array or object: its first element or member, or NULL. */
        struct hostler_json *first;
    } value;
} hostler_json;

/* Reads a text that is one JSON value (RFC 8259). Fails with `invalid-input` and the byte at fault
 * if it is not JSON, or has more than 64 levels. Needs 24 bytes for each value of the text. */
hostler_json *hostler_json_parse(const char *text, size_t length, hostler_error *error);
/* Returns the member of an object, the last one of this name; NULL if it is missing, for NULL and
 * for any other kind. */
hostler_json *hostler_json_get(const hostler_json *object, const char *name);
/* Returns the elements of a list of numbers and sets `count`; NULL for anything else. */
double *hostler_json_numbers(const hostler_json *list, size_t *count);
/* Returns the shortest text that reads as the same number; `null` if it is not finite. */
const char *hostler_json_double(double number);
const char *hostler_json_float(float number);
/* Returns the text in quotes, with escapes. */
const char *hostler_json_quote(const char *text);

/* ---- Requests ---- */

const char *hostler_request_id(hostler_request *request);
const char *hostler_request_model(hostler_request *request);
const char *hostler_request_version(hostler_request *request);
/* Sets `ms` to the milliseconds until the call is stopped; returns false if there is no limit. */
bool hostler_time_left(hostler_request *request, uint64_t *ms);
/* Returns whether the client has disconnected or the call was cancelled. */
bool hostler_cancelled(hostler_request *request);
/* Read a parameter. They leave `value` as it is if the parameter is missing, and fail with
 * `invalid-input` and the field `parameters.<name>` if it has another type. `number` also takes
 * integers. */
bool hostler_flag(hostler_request *request, const char *name, bool *value, hostler_error *error);
bool hostler_integer(hostler_request *request, const char *name, int64_t *value, hostler_error *error);
bool hostler_number(hostler_request *request, const char *name, double *value, hostler_error *error);
bool hostler_string(hostler_request *request, const char *name, const char **value,
                    hostler_error *error);
/* What an earlier call for the same request stored; empty at first. */
hostler_slice hostler_note(hostler_request *request);
/* More than 1 MiB traps. */
void hostler_set_note(hostler_request *request, const void *data, size_t length);

/* ---- Assets, configuration, log ---- */

/* Returns the whole file under `[plugins.<name>.assets]`. `data` is NULL, after the error `failed`,
 * if there is none of this name. */
hostler_slice hostler_asset(const char *name, hostler_error *error);
/* Returns the value under `[plugins.<name>.config]`, or NULL. */
const char *hostler_config(const char *key);
/* Leaves `value` as it is if the key is missing. Fails with `failed` unless it is a number from
 * `least` to `most`. */
bool hostler_config_number(const char *key, double *value, double least, double most,
                           hostler_error *error);

typedef enum hostler_level { HOSTLER_DEBUG, HOSTLER_INFO, HOSTLER_WARN, HOSTLER_ERROR } hostler_level;
void hostler_log(hostler_level level, const char *format, ...) HOSTLER_PRINTF(2, 3);

/* ---- State and metrics ---- */

/* Returns the value; `data` is NULL if there is none. */
hostler_slice hostler_state_get(const char *key);
/* The entry expires after `ttl_ms` milliseconds, or never for 0. Fails with `too-large` if it
 * exceeds `state_kb`. */
bool hostler_state_set(const char *key, const void *data, size_t length, uint64_t ttl_ms,
                       hostler_error *error);
bool hostler_state_delete(const char *key);
/* Adds to a counter and returns the new value. Counters start at 0; the 1,001st traps. */
int64_t hostler_state_add(const char *counter, int64_t delta);
/* Adds to `hostler_plugin_events_total`. An invalid name and the 65th name trap. */
void hostler_count(const char *name, uint64_t by);
/* Sets `hostler_plugin_value`. */
void hostler_gauge(const char *name, double value);

/* ---- Calls to models ---- */

/* Returns another model. `version` may be NULL. Fails with `not-found`. */
hostler_callable *hostler_model(const char *model, const char *version, hostler_error *error);
const char *hostler_callable_model(hostler_callable *model);
const char *hostler_callable_version(hostler_callable *model);
/* Returns whether the model has 0..n responses instead of one. */
bool hostler_is_streaming(hostler_callable *model);
/* Calls the model, waits for its response, and adds it to `outputs`. Fails with the error of the
 * model, `overloaded`, `deadline` or `cancelled`. */
bool hostler_call(hostler_callable *model, const hostler_tensors *inputs, hostler_tensors *outputs,
                  hostler_error *error);
/* The same, for at most `timeout_us` microseconds. */
bool hostler_call_within(hostler_callable *model, const hostler_tensors *inputs, uint64_t timeout_us,
                         hostler_tensors *outputs, hostler_error *error);
/* Starts a call and returns immediately. */
hostler_invocation *hostler_start(hostler_callable *model, const hostler_tensors *inputs,
                                  hostler_error *error);
hostler_invocation *hostler_start_within(hostler_callable *model, const hostler_tensors *inputs,
                                         uint64_t timeout_us, hostler_error *error);
/* Waits for the next response and adds it to `outputs`. Returns false after the last response, and
 * then leaves `error` as it is, and after an error. */
bool hostler_next(hostler_invocation *invocation, hostler_tensors *outputs, hostler_error *error);
/* Ends a call that is still in flight. The SDK does it when the function of the plugin returns. */
void hostler_cancel(hostler_invocation *invocation);
/* Waits until one of `count` invocations has a response or has ended, and returns its index; -1
 * after `timeout_us` microseconds. UINT64_MAX is no timeout. */
int hostler_wait_any(hostler_invocation *const *invocations, size_t count, uint64_t timeout_us);
/* Waits, at most until the deadline. */
void hostler_sleep(uint64_t us);
/* Answers the request now and continues; role `executor` only. */
bool hostler_answer_now(const hostler_tensors *outputs, hostler_error *error);

#ifdef __cplusplus
}
#endif

#endif
