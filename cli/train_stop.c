/* Signals that end a run between two steps. */
#include "cli/train_stop.h"

#include <stddef.h>
#include <unistd.h>

static volatile sig_atomic_t stopped_by;
static bool quiet;
static const int signals[] = {SIGINT, SIGTERM, SIGHUP};
enum {
    SIGNALS = sizeof signals / sizeof *signals
};

static void remember(int number)
{
    static const char answer[] = "\nStopping after this step, with a checkpoint; once more stops at once\n";
    stopped_by = number;
    if (!quiet && write(STDERR_FILENO, answer, sizeof answer - 1) < 0)
        return; /* nobody reads it */
}

static void set(void (*handler)(int), int flags)
{
    for (int i = 0; i < SIGNALS; i++) {
        struct sigaction before, action = {.sa_handler = handler, .sa_flags = flags};
        sigemptyset(&action.sa_mask);
        if (sigaction(signals[i], NULL, &before) == 0 && before.sa_handler != SIG_IGN)
            sigaction(signals[i], &action, NULL);
    }
}

const volatile sig_atomic_t *stop_on_signals(bool says)
{
    quiet = !says;
    set(remember, (int)SA_RESETHAND | SA_RESTART);
    signal(SIGPIPE,
           SIG_IGN); /* `train 2>&1 | tee`: the same SIGINT ends tee, and the checkpoint is still to come */
    return &stopped_by;
}

void stop_no_more(void)
{
    set(SIG_DFL, 0);
}

int stop_status(void)
{
    return stopped_by ? 128 + stopped_by : 0;
}
