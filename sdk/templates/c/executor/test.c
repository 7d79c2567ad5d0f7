/* Unit tests of app.c. */
#include "hostler_testing.h"

/* Stand in for the model. */
static bool fails_once(const hostler_tensors *inputs, hostler_tensors *outputs, hostler_error *error) {
    if (testing_calls("model") == 1) return hostler_fail(error, HOSTLER_UNAVAILABLE, "try again");
    return hostler_push(outputs, hostler_renamed(hostler_named(inputs, "x", error), "y"));
}

static bool fails(const hostler_tensors *inputs, hostler_tensors *outputs, hostler_error *error) {
    return hostler_fail(error, HOSTLER_FAILED, "broken");
}

static bool refuses(const hostler_tensors *inputs, hostler_tensors *outputs, hostler_error *error) {
    return hostler_invalid(error, "x", "too large");
}

static bool submit(testing_function *model, hostler_tensors *outputs, hostler_error *error) {
    const float x = 41;
    const int64_t shape[] = {1};
    hostler_tensors inputs = {0};
    hostler_push(&inputs, hostler_fp32("x", shape, 1, &x, 1, error));
    return testing_submit(&inputs, model, outputs, error);
}

static void test_calls_the_model_again_if_it_fails(void) {
    testing_begin("calls the model again if it fails");
    hostler_tensors outputs = {0};
    hostler_error error = {0};
    CHECK(submit(fails_once, &outputs, &error));
    size_t count;
    float *y = hostler_to_f32(hostler_named(&outputs, "y", &error), &count, &error);
    CHECK(y && count == 1 && y[0] == 41);
    CHECK(testing_metric("again") == 1);
}

static void test_config_sets_the_number_of_attempts(void) {
    testing_begin("config sets the number of attempts");
    testing_config("attempts", "3");
    hostler_tensors outputs = {0};
    hostler_error error = {0};
    CHECK(!submit(fails, &outputs, &error));
    CHECK_TEXT(error.message, "broken");
    CHECK(testing_calls("model") == 3);
}

static void test_does_not_repeat_a_mistake_of_the_caller(void) {
    testing_begin("does not repeat a mistake of the caller");
    hostler_tensors outputs = {0};
    hostler_error error = {0};
    CHECK(!submit(refuses, &outputs, &error));
    CHECK_TEXT(error.field, "x");
    CHECK(testing_calls("model") == 1);
}

int main(void) {
    test_calls_the_model_again_if_it_fails();
    test_config_sets_the_number_of_attempts();
    test_does_not_repeat_a_mistake_of_the_caller();
    return testing_end();
}
