/* train_report.h: what `lighthouse train` shows and leaves behind: progress, tables, audit, pictures. */
#ifndef LH_CLI_TRAIN_REPORT_H
#define LH_CLI_TRAIN_REPORT_H

#include "train/compare.h"

typedef struct progress {
    bool quiet;
    bool begun;   /* a line is on the terminal, not ended yet */
    double shown; /* lh_seconds when it was written last */
    phase phase;
    int64_t steps; /* of this stage since the program started, for the time left */
    double seconds;
} progress;

/* A watch_fn: one line that rewrites itself on a terminal, a line every ten seconds elsewhere. */
lh_status progress_show(void *user, const trainer *t, const step_report *report, lh_error *error);
void progress_end(progress *p);

void report_evaluation(const evaluation *e, FILE *to);
/* Evaluates a finished run, writes audit.json and curves.svg, prints the report. */
lh_status report_run(const char *folder, const trainer *t, lh_error *error);
/* Writes compare.json and compare.svg, prints the table. */
lh_status report_comparison(const char *folder, const comparison *c, lh_error *error);

#endif
