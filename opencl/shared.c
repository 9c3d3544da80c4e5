/*
 * What plans of one process share: a context for each device, and the programs built in it. A driver takes a
 * hundredth of a second to see that it has compiled a source before, PoCL by preprocessing it with 20,000 lines of its
 * own; a process that makes many plans would spend more time on that than on their work.
 *
 * Contexts stay for the life of the process or until one fails, as do the programs used last. Plans in a queue of the caller's are of the
 * caller's context and share nothing.
 */
#include <pthread.h>
#include <string.h>

#include "opencl/opencl.h"

enum {
    DEVICES = 16,
    PROGRAMS = 32
};

static pthread_mutex_t lock =
    PTHREAD_MUTEX_INITIALIZER; /* held while a program is built: drivers build one at a time */
static struct {
    cl_device_id id;
    cl_context context;
} devices[DEVICES];
static struct {
    cl_context context;
    char key[65];
    cl_program program;
    unsigned long used;
} programs[PROGRAMS];
static unsigned long uses;

static bool is_shared(cl_context context)
{
    for (int i = 0; i < DEVICES; i++) {
        if (context && devices[i].context == context)
            return true;
    }
    return false;
}

cl_context lh_cl_context_share(cl_device_id id, cl_int *code)
{
    cl_context context = NULL;
    int free_row = DEVICES;
    pthread_mutex_lock(&lock);
    for (int i = DEVICES - 1; i >= 0; i--) {
        if (!devices[i].context)
            free_row = i;
        else if (devices[i].id == id)
            context = devices[i].context;
    }
    *code = CL_SUCCESS;
    if (context) {
        *code = clRetainContext(context);
    } else {
        context = clCreateContext(NULL, 1, &id, NULL, NULL, code);
        if (*code == CL_SUCCESS && free_row < DEVICES && clRetainContext(context) == CL_SUCCESS) {
            devices[free_row].id = id;
            devices[free_row].context = context;
        }
    }
    pthread_mutex_unlock(&lock);
    return *code == CL_SUCCESS ? context : NULL;
}

void lh_cl_context_forget(cl_context context)
{
    pthread_mutex_lock(&lock);
    for (int i = 0; i < PROGRAMS; i++) {
        if (programs[i].program && programs[i].context == context) {
            clReleaseProgram(programs[i].program);
            programs[i].program = NULL;
            programs[i].used = 0;
        }
    }
    for (int i = 0; i < DEVICES; i++) {
        if (devices[i].context == context) {
            clReleaseContext(context);
            devices[i].context = NULL;
        }
    }
    pthread_mutex_unlock(&lock);
}

lh_status lh_cl_program_share(cl_context context, const char key[65], lh_cl_build_fn *build, const void *how,
                              cl_program *program, lh_error *error)
{
    int oldest = 0;
    lh_status status = LH_OK;
    *program = NULL;
    pthread_mutex_lock(&lock);
    for (int i = 0; i < PROGRAMS && !*program; i++) {
        if (programs[i].program && programs[i].context == context && memcmp(programs[i].key, key, 64) == 0 &&
            clRetainProgram(programs[i].program) == CL_SUCCESS) {
            *program = programs[i].program;
            programs[i].used = ++uses;
        }
        if (programs[i].used < programs[oldest].used)
            oldest = i;
    }
    if (!*program) {
        status = build(how, program, error);
        if (status == LH_OK && is_shared(context) && clRetainProgram(*program) == CL_SUCCESS) {
            if (programs[oldest].program)
                clReleaseProgram(programs[oldest].program);
            programs[oldest].context = context;
            memcpy(programs[oldest].key, key, 65);
            programs[oldest].program = *program;
            programs[oldest].used = ++uses;
        }
    }
    pthread_mutex_unlock(&lock);
    return status;
}
