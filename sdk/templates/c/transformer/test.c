/* Unit tests of app.c. */
#include "hostler_testing.h"

/* Stands in for the model: adds 1. */
static bool plus(const hostler_tensors *inputs, hostler_tensors *outputs, hostler_error *error) {
    size_t count;
    hostler_tensor *x = hostler_named(inputs, "x", error);
    float *elements = hostler_to_f32(x, &count, error);
    for (size_t at = 0; at < count; at++) elements[at] += 1;
    return hostler_push(outputs, hostler_fp32("y", hostler_shape(x), hostler_rank(x), elements, count, error));
}

static void test_the_value_becomes_the_input(void) {
    testing_begin("the value becomes the input");
    hostler_tensors inputs = {0};
    hostler_error error = {0};
    CHECK(testing_preprocess("{\"value\": 41}", &inputs, &error));
    size_t count;
    float *x = hostler_to_f32(hostler_named(&inputs, "x", &error), &count, &error);
    CHECK(x && count == 1 && x[0] == 41);
}

static void test_the_output_becomes_the_answer(void) {
    testing_begin("the output becomes the answer");
    hostler_payload answer = {0};
    hostler_error error = {0};
    CHECK(testing_transform("{\"value\": 41}", plus, &answer, &error));
    CHECK_TEXT(answer.content.data, "{\"answer\":42}");
}

static void test_refuses_what_is_not_a_number(void) {
    testing_begin("refuses what is not a number");
    hostler_tensors inputs = {0};
    hostler_error error = {0};
    CHECK(!testing_preprocess("{\"value\": \"x\"}", &inputs, &error));
    CHECK(error.kind == HOSTLER_INVALID_INPUT);
    CHECK_TEXT(error.field, "value");
}

int main(void) {
    test_the_value_becomes_the_input();
    test_the_output_becomes_the_answer();
    test_refuses_what_is_not_a_number();
    return testing_end();
}
