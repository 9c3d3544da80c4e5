/* row.h: rows of a judgement, as those who make and those who print them share them. */
#ifndef LH_VERIFY_ROW_H
#define LH_VERIFY_ROW_H

#include "verify/verify.h"

/* Hands a row on with this note (NULL: none); row->shape may still hold data. */
void verify_row_send(const verify_sink *sink, const verify_row *row, const char *note);

enum {
    VERIFY_TEXT = 1024
};
/* "wrong at [0,1,7,2]: got 1, wanted 2, 3.1 times the allowance 0.1"; returns text. */
const char *verify_row_text(const verify_row *row, char text[VERIFY_TEXT]);
/* The command that judges this row's case alone. */
const char *verify_row_command(const verify_row *row, char text[256]);
/* Row-major position of the worst element as "[0,1,7,2]"; returns text. */
const char *verify_position(const verify_row *row, char text[96]);

#endif
