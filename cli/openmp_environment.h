/* openmp_environment.h: how threads wait, settled before OpenMP's runtime reads it. */
#ifndef LH_CLI_OPENMP_ENVIRONMENT_H
#define LH_CLI_OPENMP_ENVIRONMENT_H

/*
 * For commands that compute: threads that have nothing to do sleep. Where they spin instead, as OpenMP's runtimes do by
 * default, a machine with other work on it runs them at a tenth of their speed and less. The runtime reads its environment
 * when the program is loaded, so the program starts itself once more, in the same process; without OpenMP, or where the
 * user says how to wait (OMP_WAIT_POLICY, GOMP_SPINCOUNT, KMP_BLOCKTIME), nothing happens.
 */
void openmp_environment(const char *command, char **argv);
/* For long work: a line on stderr, "COMMAND: warning: ...", where the user has threads spin. */
void openmp_warn(const char *command);

#endif
