/* A row of a judgement: how it is made, and what it says in words. */
#include <inttypes.h>
#include <stdio.h>

#include "verify/row.h"

void verify_row_send(const verify_sink *sink, const verify_row *row, const char *note)
{
    verify_row sent = *row;
    sent.shape.data = NULL;
    snprintf(sent.note, sizeof sent.note, "%s", note ? note : "");
    sink->row(sink->context, &sent);
}

const char *verify_position(const verify_row *row, char text[96])
{
    int64_t at[LH_MAX_RANK], rest = row->result.worst;
    int length = snprintf(text, 96, "[");
    for (int r = row->shape.rank - 1; r >= 0; r--) {
        at[r] = rest % row->shape.shape[r];
        rest /= row->shape.shape[r];
    }
    for (int r = 0; r < row->shape.rank; r++)
        length += snprintf(text + length, 96 - (size_t)length, r ? ",%" PRId64 : "%" PRId64, at[r]);
    snprintf(text + length, 96 - (size_t)length, "]");
    return text;
}

const char *verify_row_text(const verify_row *row, char text[VERIFY_TEXT])
{
    const verify_result *r = &row->result;
    char where[96];
    int length = snprintf(text, VERIFY_TEXT, "%s", verify_verdict_name(r->verdict));
    if (r->worst >= 0)
        length += snprintf(text + length, VERIFY_TEXT - (size_t)length, " at %s: got %.9g, wanted %.9g",
                           verify_position(row, where), r->got, r->wanted);
    if (r->verdict == VERIFY_WRONG && r->allowed > 0 && r->error > r->allowed) /* else the note says why */
        length += snprintf(text + length, VERIFY_TEXT - (size_t)length, ", %.3g times the allowance %.2g",
                           r->share, r->allowed);
    if (row->note[0])
        snprintf(text + length, VERIFY_TEXT - (size_t)length, "; %s", row->note);
    return text;
}

const char *verify_row_command(const verify_row *row, char text[256])
{
    const bool floating = !verify_integer(row->dtype);
    snprintf(text, 256, "lighthouse verify --backend %s --case %s%s%s", row->backend,
             row->subject ? row->subject->id : "?", floating ? " --dtype " : "",
             floating ? lh_dtype_name(row->dtype) : "");
    return text;
}
