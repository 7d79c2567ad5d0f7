/* Turns `{"value": 41}` into the input of the model, and its output into `{"answer": 42}`. */
#include "hostler.h"

bool plugin_preprocess(hostler_request *request, hostler_payload *payload, hostler_tensors *inputs,
                       hostler_error *error) {
    if (payload->kind != HOSTLER_PAYLOAD_JSON) return hostler_fail(error, HOSTLER_UNSUPPORTED, "send JSON");
    hostler_json *json = hostler_json_parse(payload->content.data, payload->content.length, NULL);
    hostler_json *value = hostler_json_get(json, "value");
    if (!value || value->kind != HOSTLER_JSON_NUMBER)
        return hostler_invalid(error, "value", "expected a number");
    const int64_t shape[] = {1};
    const float x = (float)value->value.number;
    return hostler_push(inputs, hostler_fp32("x", shape, 1, &x, 1, error));
}

bool plugin_postprocess(hostler_request *request, hostler_tensors *outputs, hostler_payload *answer,
                        hostler_error *error) {
    size_t count;
    float *y = hostler_to_f32(hostler_named(outputs, "y", error), &count, error);
    if (!y) return false;
    if (count == 0) return hostler_fail(error, HOSTLER_FAILED, "the output y is empty");
    return hostler_answer_json(answer, "{\"answer\":%s}", hostler_json_float(y[0]));
}
