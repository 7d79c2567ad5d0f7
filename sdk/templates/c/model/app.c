/* A model that doubles its input. */
#include "hostler.h"

void plugin_metadata(hostler_metadata *metadata) {
    const int64_t any[] = {-1};
    hostler_input(metadata, "x", HOSTLER_FP32, any, 1);
    hostler_output(metadata, "y", HOSTLER_FP32, any, 1);
}

bool plugin_predict(hostler_request *request, hostler_tensors *inputs, hostler_tensors *outputs,
                    hostler_error *error) {
    size_t count;
    hostler_tensor *x = hostler_named(inputs, "x", error);
    float *elements = hostler_to_f32(x, &count, error);
    for (size_t at = 0; at < count; at++) elements[at] *= 2;
    return hostler_push(outputs, hostler_fp32("y", hostler_shape(x), hostler_rank(x), elements, count, error));
}
