/* A strict reader of JSON (RFC 8259), and texts of numbers and strings. */
#include "internal.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The stack of a plugin is small. */
#define LEVELS_MAX 64

typedef struct reader {
    const char *text;
    size_t length, at;
} reader;

static int peek(const reader *from) {
    return from->at < from->length ? (unsigned char)from->text[from->at] : -1;
}

static bool skip(reader *from, char letter) {
    if (peek(from) != letter) return false;
    from->at++;
    return true;
}

static void skip_space(reader *from) {
    while (peek(from) == ' ' || peek(from) == '\t' || peek(from) == '\n' || peek(from) == '\r') from->at++;
}

static bool skip_word(reader *from, const char *word) {
    size_t length = strlen(word);
    if (from->length - from->at < length || memcmp(from->text + from->at, word, length) != 0) return false;
    from->at += length;
    return true;
}

static bool skip_digits(reader *from) {
    size_t start = from->at;
    while (peek(from) >= '0' && peek(from) <= '9') from->at++;
    return from->at > start;
}

static bool read_number(reader *from, double *number) {
    size_t start = from->at;
    skip(from, '-');
    if (!skip(from, '0') && !skip_digits(from)) return false;
    if (skip(from, '.') && !skip_digits(from)) return false;
    if (skip(from, 'e') || skip(from, 'E')) {
        if (!skip(from, '+')) skip(from, '-');
        if (!skip_digits(from)) return false;
    }
    /* The text may continue, with letters that strtod would read. */
    char few[64], *copy = few;
    size_t length = from->at - start;
    if (length >= sizeof few) copy = hostler_alloc(length + 1, 1);
    memcpy(copy, from->text + start, length);
    copy[length] = 0;
    *number = strtod(copy, NULL);
    return true;
}

/* Reads the four digits of an escape. Returns -1 if they are not there. */
static long read_unit(reader *from) {
    long unit = 0;
    for (int digit = 0; digit < 4; digit++) {
        int letter = peek(from);
        int value = letter >= '0' && letter <= '9'   ? letter - '0'
                    : letter >= 'a' && letter <= 'f' ? letter - 'a' + 10
                    : letter >= 'A' && letter <= 'F' ? letter - 'A' + 10
                                                     : -1;
        if (value < 0) return -1;
        unit = unit * 16 + value;
        from->at++;
    }
    return unit;
}

/* Appends a character as UTF-8. */
static char *append(char *to, long character) {
    if (character < 0x80) {
        *to++ = (char)character;
    } else if (character < 0x800) {
        *to++ = (char)(0xc0 | character >> 6);
        *to++ = (char)(0x80 | (character & 0x3f));
    } else if (character < 0x10000) {
        *to++ = (char)(0xe0 | character >> 12);
        *to++ = (char)(0x80 | (character >> 6 & 0x3f));
        *to++ = (char)(0x80 | (character & 0x3f));
    } else {
        *to++ = (char)(0xf0 | character >> 18);
        *to++ = (char)(0x80 | (character >> 12 & 0x3f));
        *to++ = (char)(0x80 | (character >> 6 & 0x3f));
        *to++ = (char)(0x80 | (character & 0x3f));
    }
    return to;
}

static char *read_escape(reader *from, char *to) {
    static const char letters[] = "\"\\/bfnrt", meanings[] = "\"\\/\b\f\n\r\t";
    int letter = peek(from);
    const char *found = letter > 0 ? strchr(letters, letter) : NULL;
    if (found) {
        from->at++;
        *to = meanings[found - letters];
        return to + 1;
    }
    if (!skip(from, 'u')) return NULL;
    long unit = read_unit(from);
    if (unit >= 0xd800 && unit < 0xdc00) {
        if (!skip(from, '\\') || !skip(from, 'u')) return NULL;
        long low = read_unit(from);
        if (low < 0xdc00 || low > 0xdfff) return NULL;
        unit = 0x10000 + (unit - 0xd800) * 0x400 + (low - 0xdc00);
    } else if (unit < 0 || unit > 0xffff || (unit >= 0xdc00 && unit < 0xe000)) {
        return NULL;
    }
    return append(to, unit);
}

static bool read_text(reader *from, hostler_slice *text) {
    if (!skip(from, '"')) return false;
    size_t end = from->at;
    while (end < from->length && from->text[end] != '"') end += from->text[end] == '\\' ? 2 : 1;
    if (end >= from->length) {
        from->at = from->length;
        return false;
    }
    /* No escape is shorter than what it stands for. */
    char *start = hostler_alloc(end - from->at + 1, 1), *to = start;
    while (from->at < end) {
        if (skip(from, '\\')) {
            to = read_escape(from, to);
            if (!to) return false;
        } else {
            if (peek(from) < 0x20) return false;
            *to++ = from->text[from->at++];
        }
    }
    *text = (hostler_slice){start, (size_t)(to - start)};
    return skip(from, '"');
}

static hostler_json *read_value(reader *from, int levels);

/* Reads what follows the opening bracket of an array or an object. */
static bool read_members(reader *from, hostler_json *value, char close, int levels) {
    if (levels == 0) return false;
    skip_space(from);
    if (skip(from, close)) return true;
    hostler_json **last = &value->value.first;
    for (;;) {
        hostler_slice name = {"", 0};
        if (value->kind == HOSTLER_JSON_OBJECT) {
            skip_space(from);
            if (!read_text(from, &name)) return false;
            skip_space(from);
            if (!skip(from, ':')) return false;
        }
        hostler_json *member = read_value(from, levels - 1);
        if (!member) return false;
        member->name = name;
        *last = member;
        last = &member->next;
        skip_space(from);
        if (skip(from, close)) return true;
        if (!skip(from, ',')) return false;
    }
}

static hostler_json *read_value(reader *from, int levels) {
    skip_space(from);
    hostler_json *value = hostler_alloc(1, sizeof *value);
    value->name.data = "";
    bool is_value = false;
    switch (peek(from)) {
    case '{':
        from->at++;
        value->kind = HOSTLER_JSON_OBJECT;
        is_value = read_members(from, value, '}', levels);
        break;
    case '[':
        from->at++;
        value->kind = HOSTLER_JSON_ARRAY;
        is_value = read_members(from, value, ']', levels);
        break;
    case '"':
        value->kind = HOSTLER_JSON_TEXT;
        is_value = read_text(from, &value->value.text);
        break;
    case 't':
    case 'f':
        value->kind = HOSTLER_JSON_BOOL;
        value->value.boolean = peek(from) == 't';
        is_value = skip_word(from, value->value.boolean ? "true" : "false");
        break;
    case 'n':
        is_value = skip_word(from, "null");
        break;
    default:
        value->kind = HOSTLER_JSON_NUMBER;
        is_value = read_number(from, &value->value.number);
    }
    return is_value ? value : NULL;
}

hostler_json *hostler_json_parse(const char *text, size_t length, hostler_error *error) {
    reader from = {text, length, 0};
    hostler_json *value = read_value(&from, LEVELS_MAX);
    if (value) skip_space(&from);
    if (value && from.at == from.length) return value;
    hostler_fail(error, HOSTLER_INVALID_INPUT, "not JSON at byte %zu", from.at);
    return NULL;
}

hostler_json *hostler_json_get(const hostler_json *object, const char *name) {
    hostler_json *found = NULL;
    if (!object || object->kind != HOSTLER_JSON_OBJECT) return NULL;
    size_t length = strlen(name);
    for (hostler_json *member = object->value.first; member; member = member->next)
        if (member->name.length == length && memcmp(member->name.data, name, length) == 0) found = member;
    return found;
}

double *hostler_json_numbers(const hostler_json *list, size_t *count) {
    *count = 0;
    if (!list || list->kind != HOSTLER_JSON_ARRAY) return NULL;
    size_t elements = 0;
    for (const hostler_json *item = list->value.first; item; item = item->next) {
        if (item->kind != HOSTLER_JSON_NUMBER) return NULL;
        elements++;
    }
    double *numbers = hostler_alloc(elements, sizeof *numbers);
    for (const hostler_json *item = list->value.first; item; item = item->next)
        numbers[(*count)++] = item->value.number;
    return numbers;
}

const char *hostler_json_double(double number) {
    if (!isfinite(number)) return "null";
    if (fabs(number) < 1e15 && number == trunc(number)) return hostler_text("%.0f", number);
    /* One text of the call, however many are tried: answers have many numbers. */
    char text[32];
    for (int digits = 1; digits <= 17; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, number);
        if (strtod(text, NULL) == number) break;
    }
    return hostler_text("%s", text);
}

const char *hostler_json_float(float number) {
    if (!isfinite(number)) return "null";
    if (fabsf(number) < 1e7f && number == truncf(number)) return hostler_text("%.0f", (double)number);
    char text[32];
    for (int digits = 1; digits <= 9; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, (double)number);
        if (strtof(text, NULL) == number) break;
    }
    return hostler_text("%s", text);
}

const char *hostler_json_quote(const char *text) {
    size_t bytes = 3;
    for (const char *from = text; *from; from++)
        bytes += *from == '"' || *from == '\\' ? 2 : (unsigned char)*from < 0x20 ? 6 : 1;
    char *quoted = hostler_alloc(bytes, 1), *to = quoted;
    *to++ = '"';
    for (const char *from = text; *from; from++) {
        if (*from == '"' || *from == '\\') {
            *to++ = '\\';
            *to++ = *from;
        } else if ((unsigned char)*from < 0x20) {
            to += snprintf(to, 7, "\\u%04x", (unsigned)*from);
        } else {
            *to++ = *from;
        }
    }
    *to = '"';
    return quoted;
}
