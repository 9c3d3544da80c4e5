/* text.h: text that is made by printing, whole or not at all. */
#ifndef LH_TEXT_H
#define LH_TEXT_H

#include <stdbool.h>
#include <stdio.h>

#include "lighthouse.h"

typedef struct lh_text {
    FILE *stream; /* to print to */
    const char *what;
    char *bytes;
    size_t size, room;
    bool lost;
} lh_text;

/* A stream into memory; `what` names the text in errors and lives on. LH_NO_MEMORY. glibc's open_memstream would do if
 * it said when it ran out of memory in the middle. */
lh_status lh_text_open(lh_text *text, const char *what, lh_error *error);
/* Closes it. *bytes is what was printed and a zero byte, to be released by free(); NULL on error. `size` may be NULL.
 * LH_NO_MEMORY where anything of it was lost. */
lh_status lh_text_close(lh_text *text, char **bytes, size_t *size, lh_error *error);

#endif
