/* train_report.h: what `lighthouse train` leaves behind: tables, audit, pictures. */
#ifndef LH_CLI_TRAIN_REPORT_H
#define LH_CLI_TRAIN_REPORT_H

#include "train/compare.h"

void report_evaluation(const evaluation *e, FILE *to);
/* Evaluates a finished run, writes audit.json and curves.svg, prints the report. Of a run that was stopped: no evaluation,
 * and how to go on. A picture that cannot be written is a warning. */
lh_status report_run(const char *folder, const trainer *t, lh_error *error);
/* "To go on: lighthouse train OPTIONS --resume FOLDER" on stderr, as a shell reads it. */
void report_how_to_go_on(const char *options, const char *folder);
/* Writes compare.json and compare.svg of n seeds, prints the table. */
lh_status report_comparisons(const char *folder, const comparison *c, int n, lh_error *error);

/* "35 s", "12 min", "3 h 05 min", "2 d 4 h"; text holds at least 32 bytes and is returned. */
char *report_duration(double seconds, char *text);
/* "FOLDER/curves.svg", and with `page` a page that shows it and loads itself again; a failure is a warning. */
void report_curves(const char *folder, bool page);

#endif
