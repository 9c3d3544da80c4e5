/* libFuzzer target: any bytes as a settings file. What is accepted is printed, read back and the same. */
#include "core/base.h"
#include "tests/fuzz_file.h"
#include "train/settings.h"

static void same_again(const settings *s)
{
    static settings again;
    bool dense[MAX_LAYERS];
    settings_default(&again);
    for (int i = 0; i < setting_count; i++) {
        char before[SETTING_TEXT], after[SETTING_TEXT];
        setting_print(s, &setting_table[i], before);
        require(setting_parse(&again, &setting_table[i], before, NULL) == LH_OK);
        setting_print(&again, &setting_table[i], after);
        require(strcmp(before, after) == 0);
    }
    if (settings_check(s, NULL) == LH_OK) {
        const lh_config config = settings_attention(s);
        require(settings_dense_layers(s, dense, NULL) == LH_OK);
        require(s->lighthouse_steps == 0 || lh_config_check(&config, NULL, NULL) == LH_OK);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    static settings s;
    char path[96];
    lh_error error;
    const int64_t live = lh_alloc_live();
    snprintf(path, sizeof path, "%s/t.ini", fuzz_make_folder());
    fuzz_write(path, bytes, size);
    settings_default(&s);
    if (settings_read(&s, path, &error) == LH_OK)
        same_again(&s);
    else
        fuzz_check_error(&error);
    require(lh_alloc_live() == live);
    return 0;
}
