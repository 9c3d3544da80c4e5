/* Evaluation, generation and export. */
#include "cli/train_use.h"

#include <stdio.h>
#include <string.h>

#include "cli/train_report.h"
#include "core/base.h"
#include "train/compare.h"
#include "train/export.h"
#include "train/place.h"

/* Does the user say what text? */
static bool text_given(const settings_flags *flags)
{
    for (int i = 0; i < flags->count; i++) {
        if (strcmp(flags->flag[i].what->name, "text") == 0)
            return true;
    }
    return false;
}

/* What a run learnt from is not held out: unless another text is given, it is the run's, divided as it was. */
static lh_status evaluate(const model_use *use, const checkpoint *c, const settings *s, const model *m,
                          lh_error *error)
{
    corpus t;
    evaluation e;
    lh_status status = text_read(s->text, s->held_out, use->folder, s->context + 1, &t, error);
    if (status != LH_OK)
        return status;
    if (!text_given(use->flags) || strcmp(t.sha256, c->text_sha256) == 0)
        status = checkpoint_same_text(c, s->text, &t, error);
    if (status == LH_OK)
        status = evaluate_model(s, m, &t, &e, error);
    if (status == LH_OK)
        report_evaluation(&e, stdout);
    text_free(&t);
    return status;
}

/* The prompt, once there is something to follow it, and what does. */
struct writing {
    const char *prompt;
    bool begun;
};

static void write_byte(void *user, uint8_t byte)
{
    struct writing *w = user;
    if (!w->begun)
        fputs(w->prompt, stdout);
    w->begun = true;
    putchar(byte);
    fflush(stdout);
}

static lh_status write_text(const model_use *use, const settings *s, const model *m, lh_error *error)
{
    const size_t length = strlen(use->prompt), count = (size_t)use->generated;
    uint8_t *bytes;
    if (length < 1 || length > MAX_TEXT)
        return lh_fail(error, LH_INVALID, "prompt has %zu bytes, wanted 1 to %d", length, MAX_TEXT);
    lh_status status = lh_alloc((void **)&bytes, length + count, "generated text", error);
    if (status != LH_OK)
        return status;
    memcpy(bytes, use->prompt, length);
    struct writing w = {.prompt = use->prompt};
    status = generate(s, m, use->temperature, (int64_t)length, (int64_t)count, bytes, write_byte, &w, error);
    if (w.begun)
        putchar('\n');
    lh_free(bytes);
    return status;
}

lh_status use_model(const model_use *use, lh_error *error)
{
    char path[PATH_SIZE];
    checkpoint c;
    model m;
    lh_status status = folder_path(use->folder, CHECKPOINT_NAME, path, error);
    if (status == LH_OK)
        status = evaluate_checkpoint(path,
                                     use->to       ? "export"
                                     : use->prompt ? "generation"
                                                   : "evaluation",
                                     use->to != NULL, &c, &m, error);
    if (status != LH_OK)
        return status;
    settings s = c.settings;
    status = settings_flags_apply(use->flags, &s, error);
    if (status == LH_OK)
        status = checkpoint_fits(&c, &s, FOR_THE_MODEL, error);
    if (status == LH_OK && !use->to)
        status = place_model(&s, NULL, &m, NULL, error);
    if (status == LH_OK)
        status = use->to       ? export_llama(&s, &m, use->to, error)
                 : use->prompt ? write_text(use, &s, &m, error)
                               : evaluate(use, &c, &s, &m, error);
    model_destroy(&m);
    checkpoint_close(&c);
    return status;
}
