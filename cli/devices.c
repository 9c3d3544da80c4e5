/* `lighthouse devices`: what can run here, and what to install for the rest. */
#include <stdio.h>
#include <stdlib.h>

#include "cli/cli.h"

static const char doc[] =
    "List the backends built here with their devices, and what to install for those without.\v"
    "Example:\n\n"
    "  lighthouse devices\n"
    "  lighthouse run --backend opencl --device 1 in.safetensors out.safetensors\n\n"
    "The number before a device is what --device takes. Having no device is no error: the exit status is "
    "0.\n";

static error_t parse_option(int key, char *argument, struct argp_state *state)
{
    if (key != ARGP_KEY_ARG)
        return ARGP_ERR_UNKNOWN;
    argp_error(state, "argument is '%s', wanted none", argument);
    return 0;
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
    if (lh_device_count(backend->name, &count, &error) != LH_OK) {
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
    const struct argp argp = {.parser = parse_option, .doc = doc};
    lh_known_backend known;
    cli_parse(&argp, argc, argv, NULL);
    for (int i = 0; lh_backend_known(i, &known); i++)
        list_devices(&known);
    return CLI_DONE;
}
