/* train_progress.h: what `lighthouse train` shows while it runs. */
#ifndef LH_CLI_TRAIN_PROGRESS_H
#define LH_CLI_TRAIN_PROGRESS_H

#include "train/trainer.h"

typedef struct progress {
    bool quiet, watch;      /* watch: the picture is drawn again and again */
    bool named;             /* of several runs: each begins with a line that names its folder */
    char folder[PATH_SIZE]; /* of the run that is shown */
    bool begun;             /* a line is on the terminal, not ended yet */
    bool estimated;         /* how long it will take has been said */
    double shown;           /* lh_seconds when it was written last */
    double drawn;           /* likewise, the picture */
    phase phase;
    int64_t steps; /* of this stage since the program started, for the time left */
    double seconds, attention;
} progress;

/* What is read, and on what the run runs, in a line on stderr. progress_show does it too when another run begins. */
void progress_start(progress *p, const trainer *t);
/* A watch_fn: one line that rewrites itself on a terminal, a line every ten seconds elsewhere. */
lh_status progress_show(void *user, const trainer *t, const step_report *report, lh_error *error);
void progress_end(progress *p);

/* Cuts a line to what fits before the end of a terminal that is so wide; 0: as it is. UTF-8 stays whole. */
void progress_fit(char *line, int columns);

#endif
