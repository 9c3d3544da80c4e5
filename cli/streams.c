/* Standard streams and the end: what is printed arrives or the exit status says so. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/cli.h"

/* A descriptor that is closed at the start would become the number of the first file opened, which then receives what is
 * printed. It is opened the wrong way round instead, so that what uses it fails. */
static void open_missing(void)
{
    static const int mode[] = {O_WRONLY, O_RDONLY, O_RDONLY};
    for (int i = STDIN_FILENO; i <= STDERR_FILENO; i++) {
        if (fcntl(i, F_GETFD) >= 0 || errno != EBADF)
            continue;
        const int opened = open("/dev/null", mode[i]);
        if (opened != i)
            _exit(CLI_REFUSED); /* nothing can be said, and nothing is safe to open */
    }
}

static bool leaving;

int cli_leave(int status)
{
    leaving = true;
    return status;
}

/* At exit. A reader that has gone away has seen what it wanted: no line about that. */
static void close_output(int status, void *unused)
{
    (void)unused;
    /* A runtime that cannot go on has said why and ends the process with 1, which here means something else. */
    if (status == CLI_MISMATCH && !leaving)
        _exit(CLI_REFUSED);
    errno = 0;
    const bool failed_before = ferror(stdout) != 0;
    const bool failed = fclose(stdout) != 0 || failed_before;
    const int reason = errno;
    if (!failed)
        return;
    if (reason != EPIPE)
        fprintf(stderr, "lighthouse: standard output cannot be written%s%s\n", reason ? ": " : "",
                reason ? strerror(reason) : "");
    fflush(stderr); /* while arguments are read it is cli_parse's, which buffers */
    _exit(CLI_REFUSED);
}

void cli_guard_streams(void)
{
    open_missing();
    /* Past a file size limit, write() then fails with a status that can be reported. */
    signal(SIGXFSZ, SIG_IGN);
    on_exit(close_output, NULL);
}
