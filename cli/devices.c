/* `lighthouse devices`: what can run here, and what to install for the rest. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cli/cli.h"

static const char doc[] =
    "List the backends built here with their devices, and what to install for those without.\v"
    "Example:\n\n"
    "  lighthouse devices\n"
    "  lighthouse devices --warm          compile now what the first run would compile\n"
    "  lighthouse devices --probe opencl  status 0: it has a device here; 77: none\n"
    "  lighthouse run --backend opencl --device 1 in.safetensors out.safetensors\n\n"
    "The number before a device is what --device takes. Having no device is no error: the exit status is "
    "0.\n";

enum {
    WARM = 1000,
    PROBE,
    DEVICE
};

static const struct argp_option options[] = {
    {"warm", WARM, NULL, 0,
     "then run one small layer of each dtype at d = 64 and 128 on every device, so that drivers that "
     "compile keep what they compiled",
     1},
    {"probe", PROBE, "NAME", 0,
     "only look for the devices of one backend, in silence, for scripts; a driver that ends its process ends this "
     "one",
     1},
    {"device", DEVICE, "N", 0, "with --probe: and run one small layer on this device", 1},
    {0},
};

struct devices {
    bool warm;
    const char *probe;
    int device;
};

static error_t parse_option(int key, char *argument, struct argp_state *state)
{
    struct devices *d = state->input;
    switch (key) {
    case WARM:
        d->warm = true;
        break;
    case PROBE:
        d->probe = argument;
        break;
    case DEVICE:
        d->device = cli_device(state, argument);
        break;
    case ARGP_KEY_ARG:
        argp_error(state, "argument is '%s', wanted none", argument);
        break;
    case ARGP_KEY_END:
        if (d->device != CLI_ALL_DEVICES && !d->probe)
            argp_error(state, "--device is given without --probe, wanted both or neither");
        break;
    default:
        return ARGP_ERR_UNKNOWN;
    }
    return 0;
}

/* One layer, forward and backward. */
static lh_status run_layer(const char *backend, int device, lh_dtype dtype, int64_t dim, lh_error *error)
{
    const lh_config config = {1, 1, 1, 256, dim, 2, 2, 8, 8};
    const lh_options plan_options = {.backend = backend, .device = device, .dtype = dtype, .backward = true};
    lh_tensor trace[LH_TENSOR_COUNT] = {{0}};
    lh_plan *plan = NULL;
    lh_status status = lh_plan_create(&config, &plan_options, &plan, error);
    for (int i = 0; i < LH_LAYER_STRIDED && status == LH_OK; i++) {
        lh_tensor *t = &trace[lh_layer_strided[i]];
        status = lh_tensor_describe(&config, dtype, lh_layer_strided[i], t, error);
        const size_t bytes = (size_t)lh_tensor_elements(t) * lh_dtype_size(dtype);
        if (status == LH_OK)
            status = lh_alloc(&t->data, bytes, lh_tensor_name(lh_layer_strided[i]), error);
        if (status == LH_OK)
            memset(t->data, 0, bytes);
    }
    if (status == LH_OK)
        status = lh_forward(plan, trace, error);
    if (status == LH_OK)
        status = lh_backward(plan, trace, error);
    lh_plan_destroy(plan);
    for (int i = 0; i < LH_LAYER_STRIDED; i++)
        lh_free(trace[lh_layer_strided[i]].data);
    return status;
}

/* Every device of every backend that computes in the dtype; how many could not. */
static int warm_dtype(lh_dtype dtype)
{
    lh_known_backend known;
    lh_error error;
    int failed = 0, count;
    for (int i = 0; lh_backend_known(i, &known); i++) {
        if (!known.row || (known.row->can.dtypes & 1u << dtype) == 0 ||
            lh_device_count(known.name, &count, &error) != LH_OK)
            continue;
        for (int device = 0; device < count; device++) {
            for (int64_t dim = 64; dim <= 128; dim *= 2) {
                if (run_layer(known.name, device, dtype, dim, &error) == LH_OK)
                    continue;
                printf("%s, device %d, %s: %s\n", known.name, device, lh_dtype_name(dtype), error.text);
                failed++;
            }
        }
    }
    return failed;
}

/* A process for each dtype, since drivers compile one thing at a time; before any of this one's touches a driver. */
static int warm(void)
{
    static const lh_dtype dtypes[] = {LH_F32, LH_F16, LH_BF16};
    enum {
        DTYPES = sizeof dtypes / sizeof *dtypes
    };
    pid_t children[DTYPES];
    int failed = 0;
    fflush(stdout);
    for (int i = 0; i < DTYPES; i++) {
        children[i] = fork();
        if (children[i] == 0) {
            const int wrong = warm_dtype(dtypes[i]);
            fflush(stdout);
            _exit(wrong > 0);
        }
    }
    for (int i = 0; i < DTYPES; i++) {
        int how = 0;
        if (children[i] < 0 || waitpid(children[i], &how, 0) < 0 || !WIFEXITED(how)) {
            printf("%s: a driver ended its process, or none could be started\n", lh_dtype_name(dtypes[i]));
            failed++;
        } else {
            failed += WEXITSTATUS(how);
        }
    }
    return failed;
}

static lh_status probe(const struct devices *d, lh_error *error)
{
    int count;
    const lh_status status = lh_device_count(d->probe, &count, error);
    return status == LH_OK && d->device != CLI_ALL_DEVICES ? run_layer(d->probe, d->device, LH_F32, 64, error)
                                                           : status;
}

static void list_devices(const lh_known_backend *backend)
{
    lh_error error;
    int count = 0;
    printf("%s\n", backend->name);
    if (!backend->row) {
        printf("    not built here\n    needs %s\n", backend->needs);
        return;
    }
    if (cli_probe(backend->row, CLI_ALL_DEVICES, &error) != LH_OK ||
        lh_device_count(backend->name, &count, &error) != LH_OK) {
        printf("    none: %s\n    needs %s\n", error.text, backend->needs);
        return;
    }
    for (int device = 0; device < count; device++) {
        lh_device_info info;
        if (lh_device_query(backend->name, device, &info, &error) != LH_OK) {
            printf("    %d: %s\n", device, error.text);
            continue;
        }
        char memory[32];
        printf("    %d: %s, %d compute unit%s, %s\n", device, info.name, info.compute_units,
               info.compute_units == 1 ? "" : "s", cli_bytes((double)info.memory, memory));
        printf("       driver: %s\n       features: %s\n", info.driver, info.features);
    }
}

int cli_devices(int argc, char **argv)
{
    const struct argp argp = {.options = options, .parser = parse_option, .doc = doc};
    lh_known_backend known;
    struct devices d = {.device = CLI_ALL_DEVICES};
    lh_error error;
    cli_parse(&argp, argc, argv, &d);
    if (d.probe) { /* two answers; any other status is of a driver that ended this process */
        const bool works = probe(&d, &error) == LH_OK;
        if (!works)
            cli_fail(argv[0], &error);
        return works ? CLI_DONE : CLI_NO_DEVICE;
    }
    const int failed = d.warm ? warm() : 0;
    for (int i = 0; lh_backend_known(i, &known); i++)
        list_devices(&known);
    return failed == 0 ? CLI_DONE : CLI_REFUSED;
}
