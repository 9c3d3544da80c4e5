/* Status codes and the one-line error. */
#include <stdarg.h>
#include <stdio.h>
#include <time.h>

#include "core/base.h"

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

lh_status lh_fail(lh_error *error, lh_status status, const char *format, ...)
{
    if (error) {
        va_list arguments;
        va_start(arguments, format);
        error->status = status;
        vsnprintf(error->text, sizeof error->text, format, arguments);
        va_end(arguments);
        /* Names out of hostile files end up here: the line stays one line, and no terminal obeys it. */
        for (char *c = error->text; *c; c++) {
            if ((unsigned char)*c < ' ' || *c == 0x7f)
                *c = '?';
        }
    }
    return status;
}

double lh_seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}
