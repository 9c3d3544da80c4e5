/* report.h: what report.c and report_json.c share. */
#ifndef LH_VERIFY_REPORT_H
#define LH_VERIFY_REPORT_H

#include <jansson.h>

#include "verify/row.h"

/* What a backend made of a case, over its dtypes and tensors. */
struct cell {
    int64_t tensors, failures, excused, skipped;
    double share; /* the largest among those that passed */
};

struct verify_report {
    verify_wish wish;
    FILE *out;
    bool live;   /* out is a terminal: the case's line is rewritten as it grows */
    bool colors; /* likewise, and nobody minds */
    const verify_case *subject;
    struct cell cell[VERIFY_MAX_BACKENDS];
    verify_row *failed; /* of this case, printed when its line is complete */
    int64_t failed_count, failed_room;
    int64_t cases, tensors, failures, skipped, lost;
    double started, shown;
    json_t *json; /* array of cases; NULL when not kept */
};

/* False when memory ran out. */
bool verify_json_case(verify_report *report);
bool verify_json_row(verify_report *report, const verify_row *row);

#endif
