/*
 * A program that loads the shared library, computes a layer on two threads and unloads it, three times over: the workers
 * of an OpenMP runtime must not be left in code that has gone. unload LIBRARY BACKEND
 */
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "lighthouse.h"

enum {
    TOKENS = 512,
    ELEMENTS = TOKENS * 16
};

/* A call of the library; its object pointer is a function's. */
#define CALL(name, ...) (*(__extension__(__typeof__(&name)) found(library, #name)))(__VA_ARGS__)

static void *found(void *library, const char *name)
{
    void *symbol = dlsym(library, name);
    if (!symbol) {
        printf("%s\n", dlerror());
        exit(1);
    }
    return symbol;
}

static lh_status compute(void *library, const char *backend, lh_error *error)
{
    static float numbers[4][ELEMENTS];
    const lh_config config = {1, 2, 2, TOKENS, 8, 1, 2, 0, 0};
    const lh_options options = {.backend = backend, .dtype = LH_F32, .threads = 2};
    const lh_tensor_id ids[] = {LH_Q, LH_K, LH_V, LH_OUT};
    lh_tensor trace[LH_TENSOR_COUNT];
    lh_plan *plan = NULL;
    lh_status status = LH_OK;
    memset(trace, 0, sizeof trace);
    for (int i = 0; i < ELEMENTS; i++)
        numbers[0][i] = numbers[1][i] = numbers[2][i] = (float)(i % 7) / 7;
    for (int i = 0; i < 4 && status == LH_OK; i++) {
        status = CALL(lh_tensor_describe, &config, LH_F32, ids[i], &trace[ids[i]], error);
        trace[ids[i]].data = numbers[i];
    }
    if (status == LH_OK)
        status = CALL(lh_plan_create, &config, &options, &plan, error);
    if (status == LH_OK)
        status = CALL(lh_forward, plan, trace, error);
    CALL(lh_plan_destroy, plan);
    return status;
}

int main(int argc, char **argv)
{
    if (argc != 3)
        return 2;
    for (int i = 0; i < 3; i++) {
        lh_error error;
        void *library = dlopen(argv[1], RTLD_NOW | RTLD_LOCAL);
        if (!library) {
            printf("%s\n", dlerror());
            return 1;
        }
        const lh_status status = compute(library, argv[2], &error);
        if (status != LH_OK) {
            printf("%s\n", error.text);
            return status == LH_NO_DEVICE ? 77 : 1;
        }
        if (dlclose(library) != 0)
            return 1;
        nanosleep(&(struct timespec){0, 20000000}, NULL); /* workers go on meanwhile */
    }
    printf("loaded and unloaded three times\n");
    return 0;
}
