/* Settings from the command line. */
#include "cli/settings_flags.h"

#include <string.h>

#include "cli/cli.h"

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
    static const struct argp argp = {.options = options, .parser = parse_option};
    const char *section = "";
    int n = 0;
    options[n++] = (struct argp_option){
        "config", CONFIG, "FILE", 0, "read settings from an INI file; flags override it", group};
    for (int i = 0; i < setting_count; i++) {
        const setting *what = &setting_table[i];
        group += strcmp(section, what->section) != 0;
        section = what->section;
        options[n++] = (struct argp_option){
            what->name, SETTING + i, what->type == SETTING_STRING ? "TEXT" : "VALUE", 0, what->help, group};
    }
    return &argp;
}

lh_status settings_flags_apply(const settings_flags *flags, settings *s, lh_error *error)
{
    lh_status status = flags->config ? settings_read(s, flags->config, error) : LH_OK;
    for (int i = 0; i < flags->count && status == LH_OK; i++)
        status = setting_parse(s, flags->flag[i].what, flags->flag[i].text, error);
    if (status == LH_OK)
        settings_choose_backend(s);
    if (status == LH_OK)
        status = settings_check(s, error);
    return status == LH_OK ? cli_backend_check(s->backend, (int)s->device, error) : status;
}
