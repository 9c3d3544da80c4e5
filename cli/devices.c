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

static void list_devices(const char *backend)
{
    lh_error error;
    int count = 0;
    if (lh_device_count(backend, &count, &error) != LH_OK) {
        printf("%s\n    none: %s\n    needs %s\n", backend, error.text, cli_backend_needs(backend));
        return;
    }
    printf("%s\n", backend);
    for (int device = 0; device < count; device++) {
        lh_device_info info;
        if (lh_device_query(backend, device, &info, &error) != LH_OK) {
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
    cli_parse(&argp, argc, argv, NULL);
    const char *name;
    for (int i = 0; (name = cli_backend_known(i)); i++) {
        if (cli_backend_built(name))
            list_devices(name);
        else
            printf("%s\n    not built here\n    needs %s\n", name, cli_backend_needs(name));
    }
    return CLI_DONE;
}
