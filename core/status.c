/* Status codes and the one-line error. */
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "core/base.h"
#include "core/language.h"

const char *lh_status_name(lh_status status)
{
    switch (status) {
    case LH_OK:
        return "ok";
    case LH_INVALID:
        return "invalid";
    case LH_FORMAT:
        return "malformed file";
    case LH_IO:
        return "input/output error";
    case LH_NO_MEMORY:
        return "out of memory";
    case LH_NO_DEVICE:
        return "no device";
    case LH_DEVICE:
        return "device error";
    case LH_UNSUPPORTED:
        return "unsupported";
    case LH_MISMATCH:
        return "mismatch";
    }
    return "unknown status";
}

const char *lh_version(void)
{
    return LH_VERSION;
}

/* The length of the UTF-8 sequence at s and what it stands for; minus the number of bytes that are none. */
static int sequence(const unsigned char *s, uint32_t *code)
{
    static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
    const int length = s[0] < 0x80 ? 1 : s[0] >> 5 == 6 ? 2 : s[0] >> 4 == 14 ? 3 : s[0] >> 3 == 30 ? 4 : 0;
    *code = length == 1 ? s[0] : s[0] & 0x7fu >> length;
    for (int i = 1; i < length; i++) {
        if (s[i] >> 6 != 2)
            return -i;
        *code = *code << 6 | (s[i] & 0x3fu);
    }
    const bool legal = length > 0 && *code >= least[length] && *code <= 0x10ffff && *code >> 11 != 27;
    return legal ? length : -1;
}

/* What moves a cursor, ends a line or turns the direction of what follows. */
static bool obeyed(uint32_t code)
{
    return code < 0x20 || (code >= 0x7f && code < 0xa0) || code == 0x200e || code == 0x200f ||
           (code >= 0x2028 && code <= 0x202e) || (code >= 0x2066 && code <= 0x2069);
}

char *lh_clean(char *text)
{
    const unsigned char *from = (const unsigned char *)text;
    char *to = text;
    while (*from) {
        uint32_t code;
        const int length = sequence(from, &code);
        if (length > 0 && !obeyed(code)) {
            memmove(to, from, (size_t)length);
            to += length;
        } else if (length > 0 || from[0] < 0xc0 || from[-length]) { /* else: cut at the text's end */
            *to++ = '?';
        }
        from += length > 0 ? length : -length;
    }
    *to = '\0';
    return text;
}

lh_status lh_fail(lh_error *error, lh_status status, const char *format, ...)
{
    if (error) {
        lh_language language;
        va_list arguments;
        va_start(arguments, format);
        error->status = status;
        lh_language_begin(&language);
        vsnprintf(error->text, sizeof error->text, format, arguments);
        lh_language_end(&language);
        va_end(arguments);
        lh_clean(error->text);
    }
    return status;
}

double lh_seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}
