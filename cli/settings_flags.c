/* Settings from the command line. */
#include "cli/settings_flags.h"

#ifdef _OPENMP
#include <omp.h>
#endif
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "cli/cli.h"
#include "train/folder.h"

enum {
    CONFIG = 1000, /* beyond characters, which would be short options */
    SETTING,
    MAX_OPTIONS = 96
};

static error_t parse_option(int key, char *argument, struct argp_state *state)
{
    settings_flags *flags = state->input;
    if (key == CONFIG) {
        flags->config = argument;
        return 0;
    }
    if (key < SETTING || key >= SETTING + setting_count)
        return ARGP_ERR_UNKNOWN;
    if (flags->count == MAX_FLAGS)
        argp_error(state, "settings are more than %d, wanted each once", MAX_FLAGS);
    flags->flag[flags->count].what = &setting_table[key - SETTING];
    flags->flag[flags->count++].text = argument;
    return 0;
}

const struct argp *settings_flags_argp(int group)
{
    static struct argp_option options[MAX_OPTIONS];
    static char helps[MAX_OPTIONS][160]; /* with the defaults */
    static const struct argp argp = {.options = options, .parser = parse_option};
    const char *section = "";
    int n = 0;
    options[n++] = (struct argp_option){
        "config",
        CONFIG,
        "FILE",
        0,
        "settings from an INI file, here or among those that come with the program; flags override it",
        group};
    for (int i = 0; i < setting_count; i++) {
        const setting *what = &setting_table[i];
        group += strcmp(section, what->section) != 0;
        section = what->section;
        char *help = helps[i];
        snprintf(help, sizeof helps[i], *what->usual ? "%s (%s)" : "%s", what->help, what->usual);
        options[n++] = (struct argp_option){
            what->name, SETTING + i, what->type == SETTING_STRING ? "TEXT" : "VALUE", 0, help, group};
    }
    return &argp;
}

/* A file that is not where it was looked for, and has no folder in its name, may be one of those that come with the program:
 * beside it as installed, or as built. */
static const char *find_config(const char *name, char path[PATH_SIZE])
{
    static const char *const places[] = {"../share/lighthouse", "train"};
    char program[PATH_SIZE];
    const ssize_t length = readlink("/proc/self/exe", program, sizeof program - 1);
    if (access(name, F_OK) == 0 || strchr(name, '/') || length <= 0)
        return name;
    program[length] = '\0';
    *strrchr(program, '/') = '\0';
    for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
        const int n = snprintf(path, PATH_SIZE, "%.3000s/%s/%.500s", program, places[i], name);
        if (n > 0 && n < PATH_SIZE && access(path, F_OK) == 0)
            return path;
    }
    return name;
}

lh_status settings_flags_apply(const settings_flags *flags, settings *s, lh_error *error)
{
    char path[PATH_SIZE];
    const char *config = flags->config ? find_config(flags->config, path) : NULL;
    if (config)
        cli_input(config);
    lh_status status = config ? settings_read(s, config, error) : LH_OK;
    for (int i = 0; i < flags->count && status == LH_OK; i++)
        status = setting_parse(s, flags->flag[i].what, flags->flag[i].text, error);
    if (status == LH_OK)
        settings_choose_backend(s);
    if (status == LH_OK)
        status = settings_check(s, error);
#ifdef _OPENMP
    if (status == LH_OK && s->threads > 0)
        omp_set_num_threads((int)s->threads); /* of the products too, which are no backend's */
#endif
    return status == LH_OK ? cli_backend_check(s->backend, (int)s->device, error) : status;
}
