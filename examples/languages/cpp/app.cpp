// A model that multiplies its input by the config key `factor`.
#include "hostler.h"

#include <algorithm>
#include <vector>

void plugin_metadata(hostler_metadata *metadata) {
    const int64_t any[] = {-1};
    hostler_input(metadata, "x", HOSTLER_FP32, any, 1);
    hostler_output(metadata, "y", HOSTLER_FP32, any, 1);
}

bool plugin_predict(hostler_request *, hostler_tensors *inputs, hostler_tensors *outputs,
                    hostler_error *error) {
    double factor = 2;
    if (!hostler_config_number("factor", &factor, 0, 1000, error)) return false;
    size_t count = 0;
    hostler_tensor *x = hostler_named(inputs, "x", error);
    const float *elements = hostler_to_f32(x, &count, error);
    if (!elements) return false;
    std::vector<float> scaled(elements, elements + count);
    std::transform(scaled.begin(), scaled.end(), scaled.begin(),
                   [factor](float value) { return value * static_cast<float>(factor); });
    return hostler_push(outputs, hostler_fp32("y", hostler_shape(x), hostler_rank(x), scaled.data(),
                                              scaled.size(), error));
}
