/* FP16 and BF16, for which C has no portable types. */
#include "internal.h"

#include <math.h>
#include <string.h>

static uint32_t bits_of(float number) {
    uint32_t bits;
    memcpy(&bits, &number, sizeof bits);
    return bits;
}

static float float_of(uint32_t bits) {
    float number;
    memcpy(&number, &bits, sizeof number);
    return number;
}

/* Rounds to the nearest value, halves to the even one. NaN stays NaN. */
static uint16_t to_bf16(float number) {
    uint32_t bits = bits_of(number);
    if (isnan(number)) return (uint16_t)(bits >> 16 | 0x40);
    return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

/* IEEE 754 binary16. From 65520 the result is infinite. */
static uint16_t to_fp16(float number) {
    uint32_t bits = bits_of(number), magnitude = bits & 0x7fffffff, result;
    if (magnitude > 0x7f800000)
        result = 0x7e00 | (magnitude >> 13 & 0x1ff);
    else if (magnitude >= 0x477ff000)
        result = 0x7c00;
    else if (magnitude >= 0x38800000)
        /* The exponents of the two formats are 127 and 15 too large. */
        result = (magnitude - ((127u - 15) << 23) + 0xfff + (magnitude >> 13 & 1)) >> 13;
    else
        /* A multiple of 2^-24. rintf rounds halves to the even one. */
        result = (uint32_t)rintf(float_of(magnitude) * 16777216.0f);
    return (uint16_t)(bits >> 16 & 0x8000) | (uint16_t)result;
}

static float from_fp16(uint16_t bits) {
    uint32_t magnitude = bits & 0x7fff;
    float result = magnitude >= 0x7c00   ? float_of(0x7f800000 | (magnitude & 0x3ff) << 13)
                   : magnitude >= 0x0400 ? float_of((magnitude << 13) + ((127u - 15) << 23))
                                         : (float)magnitude / 16777216.0f;
    return bits & 0x8000 ? -result : result;
}

static hostler_tensor *create_halves(const char *name, hostler_datatype datatype, const int64_t *shape,
                              size_t rank, const float *elements, size_t count, hostler_error *error) {
    if (!elements) return hostler_create_elements(name, datatype, shape, rank, NULL, 0, count, error);
    uint16_t *halves = hostler_alloc(count, sizeof *halves);
    for (size_t at = 0; at < count; at++)
        halves[at] = datatype == HOSTLER_FP16 ? to_fp16(elements[at]) : to_bf16(elements[at]);
    return hostler_create_elements(name, datatype, shape, rank, halves, count * sizeof *halves, count, error);
}

hostler_tensor *hostler_fp16(const char *name, const int64_t *shape, size_t rank, const float *elements,
                             size_t count, hostler_error *error) {
    return create_halves(name, HOSTLER_FP16, shape, rank, elements, count, error);
}

hostler_tensor *hostler_bf16(const char *name, const int64_t *shape, size_t rank, const float *elements,
                             size_t count, hostler_error *error) {
    return create_halves(name, HOSTLER_BF16, shape, rank, elements, count, error);
}

float *hostler_to_floats(hostler_tensor *tensor, size_t *count, hostler_error *error) {
    *count = 0;
    if (!tensor) return NULL;
    hostler_datatype datatype = hostler_type(tensor);
    if (datatype == HOSTLER_FP32) return hostler_to_f32(tensor, count, error);
    if (datatype != HOSTLER_FP16 && datatype != HOSTLER_BF16) {
        hostler_fail(error, HOSTLER_FAILED,
                     "tensor \"%s\": hostler_to_floats: expected FP16, BF16 or FP32, got %s",
                     hostler_name(tensor), hostler_datatype_name(datatype));
        return NULL;
    }
    size_t bytes;
    const uint8_t *data = hostler_read(tensor, 0, UINT64_MAX, &bytes);
    *count = bytes / 2;
    float *numbers = hostler_alloc(*count, sizeof *numbers);
    for (size_t at = 0; at < *count; at++) {
        uint16_t half = (uint16_t)(data[2 * at] | data[2 * at + 1] << 8);
        numbers[at] = datatype == HOSTLER_FP16 ? from_fp16(half) : float_of((uint32_t)half << 16);
    }
    return numbers;
}
