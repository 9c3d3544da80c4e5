/*
 * libFuzzer target: any bytes as a checkpoint; and once more as a header whose data are as many bytes as it says (at most
 * 16 KiB, made from the last byte), under a seal that fits, so that mutations reach what lies behind it: settings,
 * recipe, weights, Adam's state and the spreads of budgets.
 */
#include "core/base.h"
#include "tests/fuzz_file.h"
#include "tests/fuzz_json.h"
#include "train/checkpoint.h"
#include "train/folder.h"
#include "train/model.h"

enum {
    DATA = 1 << 14,
    HEX = 64
};

/* Loads what was accepted, where the model is small. */
static void use(const checkpoint *c)
{
    const settings *s = &c->settings;
    const model_shape shape = settings_shape(s);
    model m;
    adam a;
    budget b;
    require(c->recipe.step >= 0 && c->text_bytes >= 0 && c->text_train >= 0);
    if (settings_check(s, NULL) != LH_OK || s->width * s->layers * (s->hidden + s->heads * s->dim) > 1 << 12)
        return;
    if (model_create(&shape, 1, true, &m, NULL) != LH_OK)
        return;
    if (adam_create(&m, &a, NULL) == LH_OK) {
        lh_error error;
        if (budget_create(s, &b, NULL) == LH_OK) {
            if (checkpoint_load(c, &m, &a, &b, &error) == LH_OK)
                budget_share(s, &b);
            else
                fuzz_check_error(&error);
            budget_destroy(&b);
        }
        adam_destroy(&a);
    }
    model_destroy(&m);
}

static lh_status try(const void *bytes, size_t size, lh_error *error)
{
    checkpoint c;
    fuzz_serve(CHECKPOINT_NAME, bytes, size);
    const lh_status status = checkpoint_open(CHECKPOINT_NAME, &c, error);
    if (status == LH_OK) {
        use(&c);
        checkpoint_close(&c);
    } else {
        fuzz_check_error(error);
    }
    return status;
}

/* Largest end of a tensor's bytes that a header names, found as text. */
static size_t end_of_data(const char *header, size_t length)
{
    static const char word[] = "\"data_offsets\":[";
    size_t end = 0;
    for (size_t i = 0; i + sizeof word < length; i++) {
        if (memcmp(header + i, word, sizeof word - 1) != 0)
            continue;
        const char *comma = memchr(header + i, ',', length - i);
        const unsigned long long found = comma ? strtoull(comma + 1, NULL, 10) : 0;
        end = found > end && found <= DATA ? (size_t)found : end;
    }
    return end;
}

/* The header as a file; its seal is taken from the complaint that it does not fit. */
static void try_sealed(const uint8_t *bytes, size_t size)
{
    static const char said[] = "what the file holds is ", key[] = "\"sha256\":\"";
    const size_t length = size - 1;
    char *image = calloc(1, 8 + length + DATA + 1);
    require(image != NULL);
    memcpy(image + 8, bytes, length);
    const size_t whole = 8 + length + end_of_data(image + 8, length);
    for (int i = 0; i < 8; i++)
        image[i] = (char)((uint64_t)length >> (8 * i));
    memset(image + 8 + length, bytes[length], whole - 8 - length);
    lh_error error;
    const lh_status status = try(image, whole, &error);
    const char *hash = status == LH_FORMAT ? strstr(error.text, said) : NULL;
    char *place = NULL;
    for (size_t i = 8; hash && !place && i + sizeof key + HEX < 8 + length; i++)
        place = memcmp(image + i, key, sizeof key - 1) == 0 ? image + i + sizeof key - 1 : NULL;
    if (place && strlen(hash) >= sizeof said - 1 + HEX) {
        memcpy(place, hash + sizeof said - 1, HEX);
        try(image, whole, &error);
    }
    free(image);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    lh_error error;
    const int64_t live = lh_alloc_live();
    try(bytes, size, &error);
    if (size > 1)
        try_sealed(bytes, size);
    require(lh_alloc_live() == live);
    return 0;
}
