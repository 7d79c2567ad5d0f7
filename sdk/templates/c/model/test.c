/* Unit tests of app.c. */
#include "hostler_testing.h"

static void test_doubles_each_element(void) {
    testing_begin("doubles each element");
    const float elements[] = {1, 2.5f};
    const int64_t shape[] = {2};
    hostler_tensors inputs = {0}, outputs = {0};
    hostler_error error = {0};
    hostler_push(&inputs, hostler_fp32("x", shape, 1, elements, 2, &error));
    CHECK(testing_predict(&inputs, &outputs, &error));
    size_t count;
    float *y = hostler_to_f32(hostler_named(&outputs, "y", &error), &count, &error);
    CHECK(y && count == 2 && y[0] == 2 && y[1] == 5);
}

static void test_refuses_a_request_without_its_input(void) {
    testing_begin("refuses a request without its input");
    hostler_tensors inputs = {0}, outputs = {0};
    hostler_error error = {0};
    CHECK(!testing_predict(&inputs, &outputs, &error));
    CHECK(error.kind == HOSTLER_INVALID_INPUT);
    CHECK_TEXT(error.field, "x");
}

int main(void) {
    test_doubles_each_element();
    test_refuses_a_request_without_its_input();
    return testing_end();
}
