//! A model that doubles its input.
const h = @import("hostler");

export fn plugin_metadata(metadata: ?*h.hostler_metadata) void {
    const any = [_]i64{-1};
    h.hostler_input(metadata, "x", h.HOSTLER_FP32, &any, 1);
    h.hostler_output(metadata, "y", h.HOSTLER_FP32, &any, 1);
}

export fn plugin_predict(
    _: ?*h.hostler_request,
    inputs: *h.hostler_tensors,
    outputs: *h.hostler_tensors,
    err: *h.hostler_error,
) bool {
    const x = h.hostler_named(inputs, "x", err);
    var count: usize = 0;
    const elements = h.hostler_to_f32(x, &count, err) orelse return false;
    for (elements[0..count]) |*element| element.* *= 2;
    const y = h.hostler_fp32("y", h.hostler_shape(x), h.hostler_rank(x), elements, count, err);
    return h.hostler_push(outputs, y);
}
