/* Starting over with OMP_WAIT_POLICY. */
#include "cli/openmp_environment.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

void openmp_warn(const char *command)
{
    const char *policy = getenv("OMP_WAIT_POLICY"), *dynamic = getenv("OMP_DYNAMIC");
    if (dynamic && strcasecmp(dynamic, "true") == 0)
        fprintf(
            stderr,
            "%s: warning: OMP_DYNAMIC is true: beside other work a run has fewer threads than it could, perhaps one\n",
            command);
    if (policy && strcasecmp(policy, "active") == 0)
        fprintf(
            stderr,
            "%s: warning: OMP_WAIT_POLICY is active: threads that wait spin, and beside other work a run is many "
            "times slower\n",
            command);
}

#ifdef _OPENMP
static bool computes(const char *command)
{
    static const char *const commands[] = {"run", "bench", "train", "plan"};
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++) {
        if (strcmp(command, commands[i]) == 0)
            return true;
    }
    return false;
}

void openmp_environment(const char *command, char **argv)
{
    char program[4096];
    if (!computes(command) || getenv("OMP_WAIT_POLICY") || getenv("GOMP_SPINCOUNT") ||
        getenv("KMP_BLOCKTIME"))
        return;
    const ssize_t length = readlink("/proc/self/exe", program, sizeof program - 1);
    if (length <= 0 || setenv("OMP_WAIT_POLICY", "passive", 1) != 0)
        return;
    program[length] = '\0';
    execv(program, argv); /* where that fails, the run is as right and may be slower */
}
#else
void openmp_environment(const char *command, char **argv)
{
    (void)command;
    (void)argv;
}
#endif
