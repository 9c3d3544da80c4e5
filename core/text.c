/* Printing into memory. */
#define _GNU_SOURCE /* fopencookie */
#include <stdlib.h>
#include <string.h>

#include "core/base.h"
#include "core/text.h"

static ssize_t append(void *cookie, const char *bytes, size_t size)
{
    lh_text *text = cookie;
    if (text->room - text->size <= size) { /* a zero byte follows */
        const size_t room = 2 * (text->size + size) + 1024;
        char *more = realloc(text->bytes, room);
        text->lost = text->lost || !more;
        if (!more)
            return 0;
        text->bytes = more;
        text->room = room;
    }
    memcpy(text->bytes + text->size, bytes, size);
    text->size += size;
    return (ssize_t)size;
}

static lh_status no_memory(const lh_text *text, lh_error *error)
{
    return lh_fail(error, LH_NO_MEMORY, "%.300s: memory for its text could not be had", text->what);
}

lh_status lh_text_open(lh_text *text, const char *what, lh_error *error)
{
    *text = (lh_text){.what = what};
    text->stream = fopencookie(text, "w", (cookie_io_functions_t){.write = append});
    return text->stream ? LH_OK : no_memory(text, error);
}

lh_status lh_text_close(lh_text *text, char **bytes, size_t *size, lh_error *error)
{
    const bool failed_before = ferror(text->stream) != 0;
    const bool failed = fclose(text->stream) != 0 || failed_before;
    *bytes = NULL;
    if (!failed && !text->lost && text->size == 0)
        append(text, "", 0);
    if (failed || text->lost) {
        free(text->bytes);
        return no_memory(text, error);
    }
    text->bytes[text->size] = '\0';
    *bytes = text->bytes;
    if (size)
        *size = text->size;
    return LH_OK;
}
