/* The role `transformer`: calls plugin_metadata, plugin_preprocess and plugin_postprocess. */
#include "internal.h"

#include <string.h>

/* A transformer without a function of this name has the metadata of its model. */
__attribute__((weak)) void plugin_metadata(hostler_metadata *metadata) {
    (void)metadata;
}

bool exports_hostler_plugin_transformer_metadata(
    exports_hostler_plugin_transformer_model_metadata_t *result) {
    hostler_scope scope = hostler_scope_begin();
    hostler_metadata metadata = {0};
    plugin_metadata(&metadata);
    bool is_given = metadata.inputs.count || metadata.outputs.count;
    if (is_given) {
        hostler_give_specs(&metadata.inputs, &result->inputs);
        hostler_give_specs(&metadata.outputs, &result->outputs);
    }
    hostler_scope_end(scope);
    return is_given;
}

/* Takes over a payload of the host. */
static hostler_payload take_payload(exports_hostler_plugin_transformer_payload_t *from) {
    hostler_payload payload = {0};
    payload.content_type = "";
    payload.content.data = "";
    switch (from->tag) {
    case HOSTLER_PLUGIN_TYPES_PAYLOAD_JSON:
        payload.kind = HOSTLER_PAYLOAD_JSON;
        payload.content.length = from->val.json.len;
        payload.content.data = hostler_from_host(from->val.json);
        break;
    case HOSTLER_PLUGIN_TYPES_PAYLOAD_BYTES:
        payload.kind = HOSTLER_PAYLOAD_BYTES;
        payload.content_type = hostler_from_host(from->val.bytes.content_type);
        payload.content.length = from->val.bytes.data.len;
        payload.content.data = hostler_taken(from->val.bytes.data.ptr, from->val.bytes.data.len);
        break;
    default:
        payload.kind = HOSTLER_PAYLOAD_TENSORS;
        hostler_take_tensors(from->val.tensors.ptr, from->val.tensors.len, &payload.tensors);
    }
    return payload;
}

/* Gives an answer to the host, which frees it. */
static bool give_payload(const hostler_payload *from, exports_hostler_plugin_transformer_payload_t *to,
                         hostler_error *error) {
    memset(to, 0, sizeof *to);
    size_t length = from->content.length;
    if (from->kind == HOSTLER_PAYLOAD_TENSORS) {
        to->tag = HOSTLER_PLUGIN_TYPES_PAYLOAD_TENSORS;
        return hostler_give_tensors(&from->tensors, "plugin_postprocess", &to->val.tensors.ptr,
                                    &to->val.tensors.len, error);
    }
    if (!from->content.data)
        return hostler_fail(error, HOSTLER_FAILED,
                            "plugin_postprocess returned true without an answer; set one with "
                            "hostler_answer_json, hostler_answer_bytes or hostler_answer_tensor");
    if (from->kind == HOSTLER_PAYLOAD_JSON) {
        to->tag = HOSTLER_PLUGIN_TYPES_PAYLOAD_JSON;
        to->val.json = hostler_given_bytes(from->content.data, length);
        return true;
    }
    to->tag = HOSTLER_PLUGIN_TYPES_PAYLOAD_BYTES;
    to->val.bytes.content_type = hostler_given(from->content_type);
    to->val.bytes.data.len = length;
    if (length) to->val.bytes.data.ptr = memcpy(hostler_own(length, 1), from->content.data, length);
    return true;
}

bool exports_hostler_plugin_transformer_preprocess(
    exports_hostler_plugin_transformer_own_request_t request,
    exports_hostler_plugin_transformer_payload_t *input,
    exports_hostler_plugin_transformer_list_own_tensor_t *result,
    exports_hostler_plugin_transformer_error_t *fault) {
    hostler_scope scope = hostler_scope_begin();
    hostler_request *call = hostler_given_request(request);
    hostler_payload payload = take_payload(input);
    hostler_tensors inputs = {0};
    hostler_error error = {0};
    bool is_ok = plugin_preprocess(call, &payload, &inputs, &error) &&
                 hostler_give_tensors(&inputs, "plugin_preprocess", &result->ptr, &result->len, &error);
    if (!is_ok) hostler_give_error(&error, "plugin_preprocess", fault);
    hostler_scope_end(scope);
    return is_ok;
}

bool exports_hostler_plugin_transformer_postprocess(
    exports_hostler_plugin_transformer_own_request_t request,
    exports_hostler_plugin_transformer_list_own_tensor_t *outputs,
    exports_hostler_plugin_transformer_payload_t *result,
    exports_hostler_plugin_transformer_error_t *fault) {
    hostler_scope scope = hostler_scope_begin();
    hostler_request *call = hostler_given_request(request);
    hostler_tensors taken = {0};
    hostler_payload answer = {0};
    hostler_error error = {0};
    hostler_take_tensors(outputs->ptr, outputs->len, &taken);
    bool is_ok = plugin_postprocess(call, &taken, &answer, &error) && give_payload(&answer, result, &error);
    if (!is_ok) hostler_give_error(&error, "plugin_postprocess", fault);
    hostler_scope_end(scope);
    return is_ok;
}
