/*
 * fuzz_json.h: a libFuzzer mutator that knows where JSON values begin and end. Half of its turns are libFuzzer's own, on
 * bytes; the others copy a value over another, swap two, drop one, write one twice, or put in one that readers must
 * refuse or bear. What is no JSON, or has become none, has values all the same.
 */
#ifndef LH_TESTS_FUZZ_JSON_H
#define LH_TESTS_FUZZ_JSON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

size_t LLVMFuzzerMutate(uint8_t *bytes, size_t size, size_t max_size);
size_t LLVMFuzzerCustomMutator(uint8_t *bytes, size_t size, size_t max_size, unsigned seed);

/* The mutator's own branches are not what is looked for. */
#define FUZZ_UNSEEN __attribute__((no_sanitize("coverage")))

enum {
    FUZZ_SPANS = 512,
    FUZZ_JSON_MOST = 8192
};

struct fuzz_span {
    size_t begin, end;
};

/* Behind the string, the bracketed value or the word that begins at `at`. */
FUZZ_UNSEEN static size_t fuzz_value_end(const uint8_t *bytes, size_t size, size_t at)
{
    int depth = 0;
    bool inside = false;
    for (size_t i = at; i < size; i++) {
        const uint8_t c = bytes[i];
        if (inside && c == '\\') {
            i++;
            continue;
        }
        if (c == '"')
            inside = !inside;
        else if (!inside && (c == '{' || c == '['))
            depth++;
        else if (!inside && (c == '}' || c == ']') && --depth < 0)
            return i;
        else if (!inside && depth == 0 && (c == ',' || c == ':' || c == '\n'))
            return i;
        if (!inside && depth == 0 && (c == '"' || c == '}' || c == ']'))
            return i + 1;
    }
    return size;
}

FUZZ_UNSEEN static int fuzz_values(const uint8_t *bytes, size_t size, struct fuzz_span *span)
{
    int n = 0;
    for (size_t i = 0; i < size && n < FUZZ_SPANS; i++) {
        const bool begins =
            i == 0 || strchr("{[:,\n ", bytes[i - 1]); /* the zero byte too: it is in no JSON */
        if (begins && !strchr("}],: \n", bytes[i]))
            span[n++] = (struct fuzz_span){i, fuzz_value_end(bytes, size, i)};
        if (bytes[i] == '"') /* no values within a string */
            i = fuzz_value_end(bytes, size, i) - 1;
    }
    return n;
}

/* Bytes [begin,end) give way to `piece`. */
FUZZ_UNSEEN static size_t fuzz_splice(uint8_t *bytes, size_t size, size_t max_size, struct fuzz_span s,
                                      const void *piece, size_t length)
{
    const size_t whole = size - (s.end - s.begin) + length;
    if (whole > max_size || whole == 0)
        return size;
    memmove(bytes + s.begin + length, bytes + s.end, size - s.end);
    memcpy(bytes + s.begin, piece, length);
    return whole;
}

FUZZ_UNSEEN static size_t fuzz_mutate_json(uint8_t *bytes, size_t size, size_t max_size, unsigned seed)
{
    static const char *const odd[] = {
        "0",     "-1",   "1",    "9223372036854775807", "1e308", "2",  "-0",   "9223372036854775808",
        "1e999", "0.5",  "64",   "4611686018427387904", "{}",    "[]", "\"\"", "[0,0]",
        "null",  "true", "4096", "2147483648"};
    static struct fuzz_span span[FUZZ_SPANS];
    static uint8_t piece[FUZZ_JSON_MOST + 1];
    const int n = fuzz_values(bytes, size, span);
    if (n == 0)
        return size;
    const struct fuzz_span a = span[seed / 8 % (unsigned)n], b = span[seed / 4096 % (unsigned)n];
    const size_t length = b.end - b.begin;
    memcpy(piece, bytes + b.begin, length);
    switch (seed % 8) {
    case 0:
    case 1:
        return fuzz_splice(bytes, size, max_size, a, piece, length);
    case 2: { /* swapped, where neither holds the other */
        if (a.begin < b.end && b.begin < a.end)
            return size;
        const struct fuzz_span first = a.begin < b.begin ? a : b, second = a.begin < b.begin ? b : a;
        const size_t left = first.end - first.begin, right = second.end - second.begin;
        memcpy(piece, bytes + first.begin, left);
        memcpy(piece + left, bytes + second.begin, right);
        memmove(bytes + first.begin + right, bytes + first.end, second.begin - first.end);
        memcpy(bytes + first.begin, piece + left, right);
        memcpy(bytes + second.end - left, piece, left);
        return size;
    }
    case 3: { /* dropped, with its comma */
        const bool comma = a.end < size && bytes[a.end] == ',';
        return fuzz_splice(bytes, size, max_size, (struct fuzz_span){a.begin, a.end + comma}, "", 0);
    }
    case 4: /* once more */
        piece[length] = ',';
        return fuzz_splice(bytes, size, max_size, (struct fuzz_span){b.begin, b.begin}, piece, length + 1);
    default: {
        const char *value = odd[seed / 64 % (sizeof odd / sizeof *odd)];
        return fuzz_splice(bytes, size, max_size, a, value, strlen(value));
    }
    }
}

FUZZ_UNSEEN size_t LLVMFuzzerCustomMutator(uint8_t *bytes, size_t size, size_t max_size, unsigned seed)
{
    const unsigned mixed = seed * 2654435761u; /* neighbouring seeds, other turns */
    if (mixed >> 31 || size == 0 || size > FUZZ_JSON_MOST)
        return LLVMFuzzerMutate(bytes, size, max_size);
    return fuzz_mutate_json(bytes, size, max_size, mixed % 0x7fffffffu);
}

#endif
