/*
 * Judging by rows: one key/value head with its query heads at a time, a few rows of every tensor. What a stage reads
 * is the dump's own where the dump has it, else computed from what is before it; the report says which.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "check/sample_walk.h"

double check_work(const lh_config *c)
{
    lh_layout layout;
    if (lh_config_check(c, &layout, NULL) != LH_OK)
        return 0;
    return (double)(c->batch * c->heads * c->dim) * (double)layout.selected * (double)layout.selected;
}

static lh_status judge_head(struct walk *w, bool index_usable, lh_error *error)
{
    lh_status status = LH_OK;
    if (sample_has(w, LH_INDEX) && index_usable)
        status = sample_load_index(w, error);
    if (status == LH_OK)
        status = sample_judge_pool(w, LH_Q, LH_Q_PYR, error);
    if (status == LH_OK && w->h % (w->config->heads / w->config->kv_heads) == 0)
        status = sample_judge_pool(w, LH_K, LH_K_PYR, error);
    if (status == LH_OK && w->h % (w->config->heads / w->config->kv_heads) == 0)
        status = sample_judge_pool(w, LH_V, LH_V_PYR, error);
    if (status == LH_OK && (!sample_has(w, LH_INDEX) || index_usable))
        status = sample_judge_choice(w, error);
    if (status != LH_OK || (sample_has(w, LH_INDEX) && !index_usable))
        return status;
    status = sample_find_open(w, error);
    if (status == LH_OK && w->open)
        sample_leave_open(w);
    if (status != LH_OK || w->open)
        return status;
    status = sample_load_head(w, error);
    if (status == LH_OK)
        status = sample_judge_gather(w, LH_Q, LH_Q_PYR, LH_Q_SEL, error);
    if (status == LH_OK)
        status = sample_judge_gather(w, LH_K, LH_K_PYR, LH_K_SEL, error);
    if (status == LH_OK)
        status = sample_judge_gather(w, LH_V, LH_V_PYR, LH_V_SEL, error);
    if (status == LH_OK)
        status = sample_judge_attend(w, error);
    if (status == LH_OK)
        status = sample_judge_scatter(w, error);
    if (status == LH_OK)
        status = sample_judge_scatter_backward(w, error);
    if (status == LH_OK)
        status = sample_judge_attend_backward(w, error);
    return status == LH_OK ? sample_judge_unpool(w, error) : status;
}

static lh_status make_room(struct walk *w, lh_error *error)
{
    const int64_t d = w->config->dim, rows = w->layout.selected, judged = sample_room(w);
    const int64_t most = rows > judged ? rows : judged;
    const size_t doubles = (size_t)(8 * rows * d + 3 * most + 13 * d + 7 * judged * d);
    lh_status status = lh_alloc((void **)&w->room, doubles * sizeof(double), "head to be judged", error);
    if (status == LH_OK)
        status = lh_alloc((void **)&w->index, (size_t)rows * sizeof *w->index, "index of a head", error);
    if (status == LH_OK)
        status = lh_alloc((void **)&w->slot, (size_t)w->layout.entries * sizeof *w->slot, "slots of a head",
                          error);
    if (status == LH_OK)
        status =
            lh_alloc((void **)&w->tokens, 3 * (size_t)judged * sizeof *w->tokens, "rows to be judged", error);
    if (status != LH_OK)
        return status;
    double *at = w->room;
    double **parts[] = {&w->head.q, &w->head.k, &w->head.v, &w->head.o, &w->head.go};
    for (int i = 0; i < 5; i++, at += rows * d)
        *parts[i] = at;
    w->pooled = at;
    at += 3 * rows * d;
    w->head.lse = at;
    w->head.D = at + most;
    w->head.weight = at + 2 * most;
    at += 3 * most;
    for (int i = 0; i < 3; i++, at += 4 * d)
        w->row[i] = (struct sample_row){
            .want = at, .stored = at + d, .weighed = at + 2 * d, .of_D = w->factor ? at + 3 * d : NULL};
    w->found = at;
    at += d;
    for (int i = 0; i < 6; i++, at += judged * d)
        w->group[i / 3][i % 3] = at;
    w->group_of_D = at;
    w->head.small = w->report->dtype == LH_F16 ? 0x1p-14 : 0;
    w->head.rows = rows;
    w->head.dim = d;
    w->entries = w->tokens + judged;
    return LH_OK;
}

static lh_status judge_groups(struct walk *w, bool usable, lh_error *error)
{
    const lh_config *c = w->config;
    const int64_t groups = c->batch * c->kv_heads, group = c->heads / c->kv_heads;
    const int64_t judged = w->sample->heads > 0 && w->sample->heads / group < groups
                               ? (w->sample->heads / group > 2 ? w->sample->heads / group : 2)
                               : groups;
    const int64_t count = judged < groups ? judged : groups;
    lh_status status = LH_OK;
    for (int64_t i = 0; i < count && status == LH_OK; i++) {
        /* The first, the last, and evenly between: a fault of one batch or head shows most at the ends. */
        const int64_t at = count == 1 ? 0 : i * (groups - 1) / (count - 1);
        const int64_t room = sample_room(w);
        w->b = at / c->kv_heads;
        w->g = at % c->kv_heads;
        w->token_count = sample_draw(w, (uint64_t)(1000 + 2 * at), c->tokens, w->tokens);
        w->entries = w->tokens + room;
        w->entry_count = sample_draw(w, (uint64_t)(1001 + 2 * at), w->layout.selected, w->entries);
        sample_draw_infinite(w);
        w->group_weights = 0;
        w->group_open = false;
        for (int x = 0; x < 6; x++)
            memset(w->group[x / 3][x % 3], 0, (size_t)(room * c->dim) * sizeof(double));
        memset(w->group_of_D, 0, (size_t)(room * c->dim) * sizeof(double));
        for (int64_t j = 0; j < group && status == LH_OK; j++) {
            w->h = w->g * group + j;
            if (w->sample->progress)
                fprintf(w->sample->progress, "\rhead %" PRId64 " of %" PRId64, i * group + j + 1,
                        count * group);
            status = judge_head(w, usable, error);
        }
        if (status == LH_OK && usable && !w->group_open)
            status = sample_judge_group(w, error);
        if (status == LH_OK && usable && !w->group_open)
            status = sample_judge_group_factor(w, error);
    }
    if (w->sample->progress)
        fprintf(w->sample->progress, "\r%40s\r", "");
    return status;
}

/* A source without what hangs on a v that is not there, and a row for each such tensor. */
static void leave_out(const lh_config *config, check_source *source, check_report *report)
{
    for (int id = 0; id < LH_TENSOR_COUNT && !source->has[LH_V]; id++) {
        if (!source->has[id] || !check_hangs_on_v((lh_tensor_id)id) || report->row_count == CHECK_ROWS)
            continue;
        verify_row *row = &report->rows[report->row_count++];
        *row = (verify_row){
            .backend = "dump", .dtype = source->dtype[id], .part = "as found", .tensor = (lh_tensor_id)id};
        lh_tensor_describe(config, LH_F64, (lh_tensor_id)id, &row->shape, NULL);
        row->result = (verify_result){.verdict = VERIFY_UNJUDGED, .worst = -1};
        snprintf(row->note, sizeof row->note, "v is not in the dump");
        source->has[id] = false;
    }
}

lh_status check_sampled(const lh_config *config, const check_source *source, const check_sample *sample,
                        const check_wish *wish, check_report *report, lh_error *error)
{
    check_source usable_source = *source;
    struct walk w = {
        .config = config, .one = *config, .source = &usable_source, .sample = sample, .report = report};
    bool usable = true;
    report->config = *config;
    report->first_wrong = -1;
    report->sampled = *sample;
    if (wish)
        report->wish = *wish;
    if (!source->has[LH_Q] || !source->has[LH_K])
        return lh_fail(error, LH_INVALID, "tensor %s is missing, wanted q and k",
                       !source->has[LH_Q] ? "q" : "k");
    report->dtype = source->dtype[LH_Q];
    w.one.batch = w.one.heads = w.one.kv_heads = 1;
    lh_status status = lh_config_check(config, &w.layout, error);
    if (status == LH_OK)
        leave_out(config, &usable_source, report);
    if (status == LH_OK)
        status = sample_factor_create(&w, error);
    if (status == LH_OK)
        status = make_room(&w, error);
    if (status == LH_OK)
        status = sample_judge_finite(&w, error);
    if (status == LH_OK)
        status = sample_judge_indices(&w, &usable, error);
    if (status == LH_OK)
        status = judge_groups(&w, usable, error);
    sample_factor_destroy(&w);
    lh_free(w.room);
    lh_free(w.index);
    lh_free(w.slot);
    lh_free(w.tokens);
    if (status == LH_OK)
        check_conclude(report);
    return status;
}
