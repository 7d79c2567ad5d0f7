/* Answers of a transformer. */
#include "internal.h"

#include <string.h>

bool hostler_answer_json(hostler_payload *answer, const char *format, ...) {
    va_list values;
    va_start(values, format);
    const char *text = hostler_format(format, values);
    va_end(values);
    answer->kind = HOSTLER_PAYLOAD_JSON;
    answer->content = (hostler_slice){text, strlen(text)};
    return true;
}

bool hostler_answer_bytes(hostler_payload *answer, const char *content_type, const void *data,
                          size_t length) {
    /* A copy, with the NUL byte that follows every slice. */
    char *content = hostler_alloc(length + 1, 1);
    if (length) memcpy(content, data, length);
    answer->kind = HOSTLER_PAYLOAD_BYTES;
    answer->content_type = hostler_text("%s", content_type);
    answer->content = (hostler_slice){content, length};
    return true;
}

bool hostler_answer_tensor(hostler_payload *answer, hostler_tensor *tensor) {
    answer->kind = HOSTLER_PAYLOAD_TENSORS;
    return hostler_push(&answer->tensors, tensor);
}
