/* train_stop.h: a run that is asked to stop does so after its step. */
#ifndef LH_CLI_TRAIN_STOP_H
#define LH_CLI_TRAIN_STOP_H

#include <signal.h>
#include <stdbool.h>

/* From now on SIGINT, SIGTERM and SIGHUP, unless they are ignored, set the flag and, where it `says`, say so on stderr, once: the next one stops
 * at once. Output that nobody reads any more (SIGPIPE) ends nothing. */
const volatile sig_atomic_t *stop_on_signals(bool says);
/* As before: signals end the process. */
void stop_no_more(void);
/* What a shell says of a process that the signal ended, 130 for SIGINT; 0 without one. */
int stop_status(void);

#endif
