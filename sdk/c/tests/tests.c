/* Tests of the SDK. `sdk/c/tests/run.sh` runs them on this machine. */
#include "hostler_testing.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- A plugin: what it does is what the test has set ---- */

static bool (*behaviour)(hostler_tensors *inputs, hostler_tensors *outputs, hostler_error *error);

void plugin_metadata(hostler_metadata *metadata) {
    const int64_t any[] = {-1};
    hostler_input(metadata, "x", HOSTLER_FP32, any, 1);
    hostler_output(metadata, "y", HOSTLER_FP32, any, 1);
}

static hostler_request *current;

bool plugin_predict(hostler_request *request, hostler_tensors *inputs, hostler_tensors *outputs,
                    hostler_error *error) {
    current = request;
    return behaviour(inputs, outputs, error);
}

static bool run(bool (*plugin)(hostler_tensors *, hostler_tensors *, hostler_error *),
                hostler_tensors *outputs, hostler_error *error) {
    behaviour = plugin;
    const float x[] = {1, 2};
    const int64_t shape[] = {2};
    hostler_tensors inputs = {0};
    hostler_push(&inputs, hostler_fp32("x", shape, 1, x, 2, error));
    return testing_predict(&inputs, outputs, error);
}

/* ---- JSON ---- */

static bool parses(const char *text) {
    return hostler_json_parse(text, strlen(text), NULL);
}

static void test_json(void) {
    testing_begin("JSON");
    const char *good[] = {"0", "-1.5e+3", " [1, 2] ", "{}", "[[],{\"a\":null}]", "\"\\u00e9\\ud83d\\ude00\"", "true"};
    for (size_t at = 0; at < sizeof good / sizeof *good; at++)
        if (!CHECK(parses(good[at]))) fputs(good[at], stderr);
    const char *bad[] = {"",      "01",     "1.",      "-",        "+1",       "0x10",  "1e",       "nul",
                         "[1,]",  "{\"a\"}", "[1 2]",  "\"",       "\"\\",     "\"\\x\"", "\"\\ud800\"",
                         "\"\\ud800\\u0041\"", "\"\\udc00\"", "\"\n\"", "\"\\u12\"", "inf", "nan", "{a:1}", "1 2"};
    for (size_t at = 0; at < sizeof bad / sizeof *bad; at++)
        if (!CHECK(!parses(bad[at]))) fputs(bad[at], stderr);
    char deep[400];
    for (int levels = 64; levels <= 65; levels++) {
        memset(deep, '[', (size_t)levels);
        memset(deep + levels, ']', (size_t)levels);
        CHECK((hostler_json_parse(deep, (size_t)levels * 2, NULL) != NULL) == (levels == 64));
    }
    hostler_error error = {0};
    CHECK(!hostler_json_parse("[1,]", 4, &error));
    CHECK_TEXT(error.message, "not JSON at byte 3");
    const char *text = "{\"a\":1,\"n\":[1,2.5],\"a\":\"\\u00e9\\ud83d\\ude00\\n\"}";
    hostler_json *value = hostler_json_parse(text, strlen(text), NULL);
    hostler_json *a = hostler_json_get(value, "a");
    CHECK(a && a->kind == HOSTLER_JSON_TEXT);
    CHECK_TEXT(a->value.text.data, "\xc3\xa9\xf0\x9f\x98\x80\n");
    size_t count;
    double *numbers = hostler_json_numbers(hostler_json_get(value, "n"), &count);
    CHECK(numbers && count == 2 && numbers[1] == 2.5);
    CHECK(!hostler_json_numbers(value, &count) && !hostler_json_get(NULL, "a"));
    CHECK(isinf(hostler_json_parse("1e400", 5, NULL)->value.number));
    CHECK_TEXT(hostler_json_quote("a\"\\\n\x01"), "\"a\\\"\\\\\\u000a\\u0001\"");
    CHECK_TEXT(hostler_json_double(0.1), "0.1");
    CHECK_TEXT(hostler_json_double(100), "100");
    CHECK_TEXT(hostler_json_double(1e300), "1e+300");
    CHECK_TEXT(hostler_json_float(0.1f), "0.1");
    CHECK_TEXT(hostler_json_float(16777216), "16777216");
    CHECK_TEXT(hostler_json_double(NAN), "null");
}

/* Texts that are almost JSON must not be read beyond their end. The sanitizer sees it. */
static void test_json_of_random_bytes(void) {
    const char seed[] = "{\"a\":[1,-2.5e3,\"x\\u00e9\\ud83d\\ude00\\\"\"],\"b\":{\"c\":null,\"d\":true}}";
    unsigned random = 1;
    size_t valid = 0;
    for (int round = 0; round < 20000; round++) {
        testing_begin("JSON of random bytes");
        size_t length = sizeof seed - 1;
        char *text = malloc(length);
        memcpy(text, seed, length);
        for (int change = 0; change < 3; change++) {
            random = random * 1103515245 + 12345;
            text[random / 65536 % length] = seed[random / 256 % length];
        }
        random = random * 1103515245 + 12345;
        if (random / 65536 % 2) length = random / 131072 % (length + 1);
        char *exact = malloc(length ? length : 1);
        memcpy(exact, text, length);
        valid += hostler_json_parse(exact, length, NULL) != NULL;
        free(exact);
        free(text);
    }
    CHECK(valid > 0);
}

/* ---- Tensors ---- */

#define ROUND_TRIP(create, read, element, ...)                                                       \
    do {                                                                                             \
        const element elements[] = {__VA_ARGS__};                                                    \
        const size_t length = sizeof elements / sizeof *elements;                                    \
        const int64_t shape[] = {(int64_t)length};                                                   \
        size_t count;                                                                                \
        hostler_error error = {0};                                                                   \
        element *found = read(create("x", shape, 1, elements, length, &error), &count, &error);      \
        CHECK(found && count == length && memcmp(found, elements, sizeof elements) == 0);            \
        CHECK(!create("x", shape, 1, elements, length - 1, &error) && error.message);                \
        hostler_error other = {0};                                                                   \
        const int64_t none[] = {0};                                                                  \
        CHECK(read(create("x", none, 1, elements, 0, &other), &count, &other) && count == 0);        \
    } while (0)

static void test_tensors(void) {
    testing_begin("tensors");
    ROUND_TRIP(hostler_boolean, hostler_to_bool, bool, true, false);
    ROUND_TRIP(hostler_uint8, hostler_to_u8, uint8_t, 0, 255);
    ROUND_TRIP(hostler_uint16, hostler_to_u16, uint16_t, 0, 65535);
    ROUND_TRIP(hostler_uint32, hostler_to_u32, uint32_t, 0, UINT32_MAX);
    ROUND_TRIP(hostler_uint64, hostler_to_u64, uint64_t, 0, UINT64_MAX);
    ROUND_TRIP(hostler_int8, hostler_to_i8, int8_t, -128, 127);
    ROUND_TRIP(hostler_int16, hostler_to_i16, int16_t, INT16_MIN, INT16_MAX);
    ROUND_TRIP(hostler_int32, hostler_to_i32, int32_t, INT32_MIN, INT32_MAX);
    ROUND_TRIP(hostler_int64, hostler_to_i64, int64_t, INT64_MIN, INT64_MAX);
    ROUND_TRIP(hostler_fp32, hostler_to_f32, float, -1.5f, 1e38f);
    ROUND_TRIP(hostler_fp64, hostler_to_f64, double, -1.5, 1e300);
    ROUND_TRIP(hostler_fp16, hostler_to_floats, float, -2, 65504, 0.5f, 5.9604645e-8f, INFINITY);
    ROUND_TRIP(hostler_bf16, hostler_to_floats, float, -2, 1, 0.5f, INFINITY);
    const int64_t one[] = {1}, scalar[1] = {0};
    size_t count;
    /* Halfway between 0x3f80 and 0x3f81: to the even one. */
    const float half = 1.00390625f;
    CHECK(*hostler_to_floats(hostler_bf16("x", one, 1, &half, 1, NULL), &count, NULL) == 1);
    hostler_slice texts[] = {{"one", 3}, {"", 0}};
    const int64_t two[] = {2};
    hostler_error error = {0};
    hostler_tensor *bytes = hostler_bytes("t", two, 1, texts, 2, &error);
    hostler_slice *found = hostler_to_bytes(bytes, &count, &error);
    CHECK(found && count == 2 && found[0].length == 3 && found[1].length == 0);
    CHECK_TEXT(found[0].data, "one");
    CHECK_TEXT(hostler_described(bytes), "BYTES [2]");
    CHECK_TEXT(hostler_name(hostler_renamed(bytes, "u")), "u");
    CHECK(hostler_rank(hostler_fp32("s", scalar, 0, &half, 1, &error)) == 0);
    CHECK(!hostler_reshaped(bytes, one, 1, &error) && hostler_reshaped(bytes, two, 1, &error));
    /* An error goes through the calls that follow it. */
    error = (hostler_error){0};
    hostler_tensors none = {0};
    hostler_tensor *missing = hostler_named(&none, "x", &error);
    float *elements = hostler_to_f32(missing, &count, &error);
    CHECK(!hostler_push(&none, hostler_fp32("y", hostler_shape(missing), hostler_rank(missing), elements,
                                            count, &error)));
    CHECK_TEXT(error.message, "no tensor is named \"x\"; there is none");
    CHECK(!hostler_to_i64(bytes, &count, &error));
    CHECK_TEXT(error.message,
               "tensor \"t\": hostler_to_i64: expected INT64, got BYTES; read it with hostler_to_bytes");
    error = (hostler_error){0};
    CHECK(!hostler_fp16("h", one, 1, NULL, 3, &error));
    CHECK_TEXT(error.message, "tensor \"h\": its 3 elements are NULL");
}

/* What a client decides must neither overflow a size nor take more memory than it has bytes. */
static void test_hostile_sizes(void) {
    testing_begin("hostile sizes");
    hostler_error error = {0};
    const int64_t one[] = {1}, large[] = {INT64_MAX, INT64_MAX}, negative[] = {-1}, empty[] = {0, INT64_MAX};
    const float number = 1;
    CHECK(!hostler_fp32("x", large, 2, &number, 1, &error) && error.kind == HOSTLER_INVALID_INPUT);
    CHECK(!hostler_fp32("x", negative, 1, &number, 1, &error) && error.kind == HOSTLER_INVALID_INPUT);
    CHECK(hostler_fp32("x", empty, 2, &number, 0, &error) != NULL);
    /* Elements that share their bytes. */
    const hostler_slice shared[] = {{"x", SIZE_MAX / 2}, {"x", SIZE_MAX / 2}};
    const int64_t two[] = {2};
    error = (hostler_error){0};
    CHECK(!hostler_bytes("x", two, 1, shared, 2, &error) && error.kind == HOSTLER_TOO_LARGE);
    hostler_tensors many = {0};
    hostler_tensor *first = hostler_fp32("x", one, 1, &number, 1, &error);
    for (int at = 0; at < 4000; at++)
        hostler_push(&many, hostler_renamed(first, hostler_text("tensor number %d", at)));
    error = (hostler_error){0};
    CHECK(!hostler_named(&many, "y", &error) && strlen(error.message) < 4000 * 24);
    CHECK(strstr(error.message, "there is \"tensor number 0\", \"tensor number 1\", "));
}

/* ---- What a function of a plugin returns ---- */

static bool returns_input(hostler_tensors *inputs, hostler_tensors *outputs, hostler_error *error) {
    (void)error;
    return hostler_push(outputs, inputs->items[0]);
}

static bool returns_twice(hostler_tensors *inputs, hostler_tensors *outputs, hostler_error *error) {
    return returns_input(inputs, outputs, error) && returns_input(inputs, outputs, error);
}

static bool returns_no_error(hostler_tensors *inputs, hostler_tensors *outputs, hostler_error *error) {
    (void)inputs, (void)outputs, (void)error;
    return false;
}

static bool uses_host(hostler_tensors *inputs, hostler_tensors *outputs, hostler_error *error) {
    (void)inputs;
    int64_t top = 3, unset = 7;
    bool flag = false;
    double number = 0;
    const char *text = NULL;
    CHECK(hostler_integer(current, "top", &top, error) && top == 5);
    CHECK(hostler_integer(current, "none", &unset, error) && unset == 7);
    CHECK(hostler_number(current, "top", &number, error) && number == 5);
    CHECK(hostler_flag(current, "flag", &flag, error) && flag);
    CHECK(hostler_string(current, "text", &text, error));
    CHECK_TEXT(text, "hello");
    CHECK_TEXT(hostler_asset("words", error).data, "one two");
    CHECK(!hostler_asset("none", NULL).data);
    CHECK(hostler_state_add("n", 2) == 2 && hostler_state_add("n", -1) == 1);
    CHECK(!hostler_state_get("k").data && hostler_state_set("k", "v", 1, 0, error));
    CHECK_TEXT(hostler_state_get("k").data, "v");
    CHECK(hostler_state_delete("k") && !hostler_state_delete("k"));
    hostler_set_note(current, "ab", 2);
    CHECK_TEXT(hostler_note(current).data, "ab");
    hostler_log(HOSTLER_WARN, "%d of %s", 1, "\xc3(");
    hostler_gauge("size", 2.5);
    hostler_callable *model = hostler_model("plus", NULL, error);
    hostler_invocation *calls[] = {NULL, hostler_start(model, inputs, error)};
    CHECK(hostler_wait_any(calls, 2, UINT64_MAX) == 1);
    hostler_tensors responses = {0};
    CHECK(hostler_next(calls[1], &responses, error) && responses.count == 1);
    CHECK(!hostler_next(calls[1], &responses, error) && !error->message);
    hostler_cancel(calls[1]);
    CHECK(hostler_wait_any(calls, 2, 0) == -1);
    CHECK(!hostler_model("none", NULL, error) && error->kind == HOSTLER_NOT_FOUND);
    (void)outputs;
    return hostler_string(current, "flag", &text, error);
}

static bool plus(const hostler_tensors *inputs, hostler_tensors *outputs, hostler_error *error) {
    return hostler_push(outputs, hostler_renamed(hostler_named(inputs, "x", error), "y"));
}

static void test_plugin(void) {
    hostler_tensors outputs = {0};
    hostler_error error = {0};
    testing_begin("an input may be an output");
    CHECK(run(returns_input, &outputs, &error) && outputs.count == 1);
    testing_begin("a tensor may be returned once");
    CHECK(!run(returns_twice, &outputs, &error));
    CHECK(error.message && strstr(error.message, "the same tensor, \"x\", as 0 and 1"));
    testing_begin("an error must be set");
    error = (hostler_error){0};
    CHECK(!run(returns_no_error, &outputs, &error));
    CHECK(error.message && strstr(error.message, "plugin_predict returned false without an error"));
    testing_begin("the host");
    error = (hostler_error){0};
    testing_integer("top", 5);
    testing_flag("flag", true);
    testing_string("text", "hello");
    testing_asset("words", "one two", 7);
    testing_model("plus", plus);
    CHECK(!run(uses_host, &outputs, &error));
    CHECK_TEXT(error.field, "parameters.flag");
    CHECK_TEXT(testing_log(), "1 of ?(\n");
    CHECK(testing_metric("size") == 2.5 && testing_calls("plus") == 1);
}

int main(void) {
    test_json();
    test_json_of_random_bytes();
    test_tensors();
    test_hostile_sizes();
    test_plugin();
    return testing_end();
}
