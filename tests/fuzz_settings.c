/* libFuzzer target: any bytes as a settings file. What is accepted is printed, read back and the same. */
#include "core/base.h"
#include "tests/fuzz_file.h"
#include "train/settings.h"

/* Of one type each; a default is printed and read back once, not every time. */
static bool is_default(const settings *s, const settings *usual, const setting *what)
{
    const char *now = (const char *)s + what->offset, *then = (const char *)usual + what->offset;
    if (what->type == SETTING_STRING)
        return strcmp(now, then) == 0;
    return memcmp(now, then, what->type == SETTING_FLAG ? sizeof(bool) : 8) == 0;
}

static void same_again(const settings *s, const settings *usual)
{
    static settings again;
    static bool tried;
    bool dense[MAX_LAYERS];
    again = *usual;
    for (int i = 0; i < setting_count; i++) {
        char before[SETTING_TEXT], after[SETTING_TEXT];
        if (tried && is_default(s, usual, &setting_table[i]))
            continue;
        setting_print(s, &setting_table[i], before);
        require(setting_parse(&again, &setting_table[i], before, NULL) == LH_OK);
        setting_print(&again, &setting_table[i], after);
        require(strcmp(before, after) == 0);
    }
    tried = true;
    if (settings_check(s, NULL) == LH_OK) {
        const lh_config config = settings_attention(s);
        require(settings_dense_layers(s, dense, NULL) == LH_OK);
        require(s->lighthouse_steps == 0 || lh_config_check(&config, NULL, NULL) == LH_OK);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    static settings s, usual;
    lh_error error;
    const int64_t live = lh_alloc_live();
    if (usual.layers == 0)
        settings_default(&usual);
    s = usual;
    fuzz_serve("t.ini", bytes, size);
    if (settings_read(&s, "t.ini", &error) == LH_OK)
        same_again(&s, &usual);
    else
        fuzz_check_error(&error);
    require(lh_alloc_live() == live);
    return 0;
}
