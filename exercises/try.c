/*
 * Which of the seven functions are right: each runs on the reference's own inputs to it, in a process of its own, and the
 * library's checker judges what came out and names the bug where it knows it.
 */
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lighthouse.h"
#include "ref.h"
#include "try.h"

static int missing;             /* the function under test was called and has no body */
static const char *wanted_name; /* the one under test */

void not_written(const char *function)
{
    if (strcmp(function, wanted_name) == 0)
        missing = 1;
}

/* Small layers that between them tell apart all the bugs that fit in one head; the last has many equal scores. */
static const lh_config configs[] = {
    {1, 1, 1, 48, 3, 3, 2, 8, 4},
    {1, 1, 1, 54, 2, 3, 3, 4, 2},
    {1, 1, 1, 32, 4, 4, 2, 4, 4},
    {1, 1, 1, 48, 1, 3, 2, 8, 4},
};

struct layer {
    lh_config config;
    struct ref_shape shape;
    lh_tensor right[LH_TENSOR_COUNT], mine[LH_TENSOR_COUNT];
};

static void fail(const lh_error *error)
{
    fprintf(stderr, "try: %s\n", error->text);
    exit(99);
}

static double draw(unsigned *state, int ties)
{
    double sum = 0;
    for (int i = 0; i < 4; i++) {
        *state = *state * 1664525u + 1013904223u;
        sum += (*state >> 8) / 16777216.0 - 0.5;
    }
    return ties ? floor(2 * sum + 0.5) : 2 * sum;
}

/* q k v dout drawn, everything else as the reference computes it; `mine` is a second copy. */
static void prepare(struct layer *l, const lh_config *config, unsigned seed)
{
    lh_options options = {0};
    lh_plan *plan;
    lh_error error;
    options.dtype = LH_F64;
    options.backward = options.stages = 1;
    l->config = *config;
    l->shape = (struct ref_shape){
        1, 1, 1, config->tokens, config->dim, config->levels, config->pool, config->topk, config->tile_topk};
    for (int id = 0; id < LH_TENSOR_COUNT; id++) {
        if (lh_tensor_describe(config, LH_F64, (lh_tensor_id)id, &l->right[id], &error) != LH_OK)
            fail(&error);
        l->mine[id] = l->right[id];
        const size_t bytes = (size_t)lh_tensor_elements(&l->right[id]) * 8;
        l->right[id].data = calloc(1, bytes);
        l->mine[id].data = calloc(1, bytes);
        if (!l->right[id].data || !l->mine[id].data)
            exit(99);
        if (id == LH_Q || id == LH_K || id == LH_V || id == LH_DOUT)
            for (int64_t i = 0; i < lh_tensor_elements(&l->right[id]); i++)
                ((double *)l->right[id].data)[i] = draw(&seed, config->dim == 1);
    }
    if (lh_plan_create(config, &options, &plan, &error) != LH_OK)
        fail(&error);
    for (int stage = 0; stage < LH_STAGE_COUNT; stage++)
        if (lh_run_stage(plan, (lh_stage)stage, l->right, &error) != LH_OK)
            fail(&error);
    lh_plan_destroy(plan);
}

static double *right(const struct layer *l, int id)
{
    return l->right[id].data;
}

static double *mine(const struct layer *l, int id)
{
    return l->mine[id].data;
}

static int64_t *index_of(const struct layer *l)
{
    const int64_t n = lh_tensor_elements(&l->right[LH_INDEX]);
    int64_t *index = malloc((size_t)n * sizeof *index);
    for (int64_t i = 0; i < n; i++)
        index[i] = ((int32_t *)l->right[LH_INDEX].data)[i];
    return index;
}

static int64_t *slots_of(const struct layer *l)
{
    int64_t *slot = malloc((size_t)ref_entries(&l->shape) * sizeof *slot);
    ref_slots(&l->shape, index_of(l), slot);
    return slot;
}

/* ---- the seven: each fills its tensors of `mine` ---- */

static void try_pool(struct layer *l)
{
    ref_pool(&l->shape, right(l, LH_Q), mine(l, LH_Q_PYR));
    ref_pool(&l->shape, right(l, LH_K), mine(l, LH_K_PYR));
    ref_pool(&l->shape, right(l, LH_V), mine(l, LH_V_PYR));
}

static void try_score(struct layer *l)
{
    ref_score(&l->shape, right(l, LH_Q), mine(l, LH_SCORE_Q));
    ref_score(&l->shape, right(l, LH_K), mine(l, LH_SCORE_K));
}

static int compare_entries(const void *a, const void *b)
{
    const int32_t x = *(const int32_t *)a, y = *(const int32_t *)b;
    return (x > y) - (x < y);
}

static void try_select(struct layer *l)
{
    const int64_t n = ref_selected(&l->shape);
    struct ref_candidate *scratch = calloc((size_t)(4 * n), sizeof *scratch); /* room for too many */
    int64_t *index = calloc((size_t)(4 * n), sizeof *index);
    for (int64_t i = 0; i < 4 * n; i++)
        index[i] = -1;
    ref_select(&l->shape, right(l, LH_SCORE_Q), right(l, LH_SCORE_K), index, scratch);
    for (int64_t i = 0; i < n; i++)
        ((int32_t *)l->mine[LH_INDEX].data)[i] = (int32_t)index[i];
}

/* Which entries, whatever their order: the right ones are put in the right order. */
static void try_choice(struct layer *l)
{
    const size_t n = (size_t)ref_selected(&l->shape);
    int32_t *chosen = malloc(n * sizeof *chosen), *wanted = malloc(n * sizeof *wanted);
    try_select(l);
    memcpy(chosen, l->mine[LH_INDEX].data, n * sizeof *chosen);
    memcpy(wanted, l->right[LH_INDEX].data, n * sizeof *wanted);
    qsort(chosen, n, sizeof *chosen, compare_entries);
    qsort(wanted, n, sizeof *wanted, compare_entries);
    if (memcmp(chosen, wanted, n * sizeof *wanted) == 0)
        memcpy(l->mine[LH_INDEX].data, l->right[LH_INDEX].data, n * sizeof *wanted);
}

static void try_attend(struct layer *l)
{
    double *row = calloc((size_t)ref_selected(&l->shape), sizeof *row);
    ref_attend(&l->shape, right(l, LH_Q_SEL), right(l, LH_K_SEL), right(l, LH_V_SEL), mine(l, LH_O_SEL),
               mine(l, LH_LSE), row);
}

static void try_scatter(struct layer *l)
{
    ref_scatter(&l->shape, right(l, LH_O_SEL), slots_of(l), mine(l, LH_OUT), l->mine[LH_COVERAGE].data);
}

static void try_unpool(struct layer *l)
{
    const int64_t *slot = slots_of(l);
    ref_unpool(&l->shape, right(l, LH_DQ_SEL), slot, mine(l, LH_DQ));
    ref_unpool(&l->shape, right(l, LH_DK_SEL), slot, mine(l, LH_DK));
    ref_unpool(&l->shape, right(l, LH_DV_SEL), slot, mine(l, LH_DV));
}

static const struct {
    const char *function, *file;
    void (*run)(struct layer *l);
    lh_stage stage;
    const char *needs; /* what must be right before it can be tried: a mistake there shows in both */
} exercises[] = {
    {"ref_pool", "pool.c", try_pool, LH_POOL, NULL},
    {"ref_score", "score.c", try_score, LH_SCORE, NULL},
    {"select_tile", "select.c", try_choice, LH_SELECT, NULL},
    {"make_parent", "select.c", try_select, LH_SELECT, "select_tile"},
    {"ref_attend", "attend.c", try_attend, LH_ATTEND, NULL},
    {"ref_scatter", "scatter.c", try_scatter, LH_SCATTER, NULL},
    {"ref_unpool", "pool.c", try_unpool, LH_UNPOOL, NULL},
};
enum {
    EXERCISES = sizeof exercises / sizeof *exercises,
    CONFIGS = sizeof configs / sizeof *configs,
};

/* ---- what is said about a wrong one ---- */

static double element(const lh_tensor *t, int64_t i)
{
    return t->dtype == LH_F64   ? ((double *)t->data)[i]
           : t->dtype == LH_I32 ? ((int32_t *)t->data)[i]
                                : ((int64_t *)t->data)[i];
}

/* The first element that differs by more than rounding. */
static void say_where(const struct layer *l, lh_stage stage)
{
    for (const lh_tensor_id *id = lh_stage_writes(stage); *id != LH_TENSOR_COUNT; id++) {
        for (int64_t i = 0; i < lh_tensor_elements(&l->right[*id]); i++) {
            const double found = element(&l->mine[*id], i), wanted = element(&l->right[*id], i);
            if (fabs(found - wanted) <= 1e-9 * (1 + fabs(wanted)))
                continue;
            const int64_t d = l->right[*id].rank == 4 ? l->config.dim : 1;
            printf("wrong: %s row %d", lh_tensor_name(*id), (int)(i / d));
            if (d > 1)
                printf(" component %d", (int)(i % d));
            printf(" is %.6g, wanted %.6g (N %d, d %d, L %d, p %d, k %d, m %d)\n", found, wanted,
                   (int)l->config.tokens, (int)l->config.dim, (int)l->config.levels, (int)l->config.pool,
                   (int)l->config.topk, (int)l->config.tile_topk);
            return;
        }
    }
    printf("wrong\n");
}

/* "fix" and "breaks" of the known bugs that give just these numbers. */
static void say_why(const char *report)
{
    const char *at = report ? strstr(report, "\"faults\"") : NULL;
    const char *const end = at ? strstr(at, "\"text\"") : NULL;
    int said = 0;
    while (at && (at = strstr(at, "\"breaks\": \"")) && at < end && said < 3) {
        at += strlen("\"breaks\": \"");
        const char *fix = strstr(at, "\"fix\": \"");
        if (!fix)
            return;
        fix += strlen("\"fix\": \"");
        printf("                the oracle: %.*s (%.*s)\n", (int)strcspn(fix, "\""), fix,
               (int)strcspn(at, "\""), at);
        said++;
        at = fix;
    }
    if (!said)
        printf("                the oracle knows no bug that gives these numbers\n");
}

/* In a child: exit status 0 right, 1 wrong, 2 not written, 99 trouble. */
static int judge(int which)
{
    const lh_stage stage = exercises[which].stage;
    wanted_name = exercises[which].function;
    alarm(20); /* for loops that never end */
    for (int c = 0; c < CONFIGS; c++) {
        struct layer l;
        lh_tensor present[LH_TENSOR_COUNT];
        lh_error error;
        char *report = NULL;
        prepare(&l, &configs[c], 7u + (unsigned)c);
        exercises[which].run(&l);
        if (missing) {
            printf("not written yet\n");
            return 2;
        }
        memcpy(present, l.right, sizeof present);
        for (int s = stage + 1; s < LH_STAGE_COUNT; s++) /* what comes behind is not asked about */
            for (const lh_tensor_id *id = lh_stage_writes((lh_stage)s); *id != LH_TENSOR_COUNT; id++)
                present[*id].data = NULL;
        for (const lh_tensor_id *id = lh_stage_writes(stage); *id != LH_TENSOR_COUNT; id++)
            present[*id] = l.mine[*id];
        const lh_status status = lh_check(&configs[c], present, &report, &error);
        if (status != LH_OK) {
            say_where(&l, stage);
            if (status == LH_MISMATCH)
                say_why(report);
            else
                printf("                %s\n", error.text);
            return 1;
        }
        lh_text_free(report);
    }
    printf("right\n");
    return 0;
}

/* What exercise i waits for: one before it that is not right. NULL: nothing. */
static const char *waits_for(int i, const int *right_so_far)
{
    for (int j = 0; j < i; j++)
        if (exercises[i].needs && strcmp(exercises[i].needs, exercises[j].function) == 0 && !right_so_far[j])
            return exercises[i].needs;
    return NULL;
}

int main(void)
{
    int good = 0, is_right[EXERCISES] = {0};
    for (int i = 0; i < EXERCISES; i++) {
        int status;
        printf("%-12s %-9s ", exercises[i].function, exercises[i].file);
        if (waits_for(i, is_right)) {
            printf("waits for %s\n", waits_for(i, is_right));
            continue;
        }
        fflush(stdout);
        const pid_t child = fork();
        if (child == 0) {
            const int result = judge(i);
            fflush(stdout);
            _exit(result);
        }
        if (child < 0 || waitpid(child, &status, 0) != child)
            return 99;
        if (WIFSIGNALED(status))
            printf("%s\n", WTERMSIG(status) == SIGALRM ? "does not end" : "crashes");
        else if (WEXITSTATUS(status) == 99)
            printf("could not be tried\n");
        is_right[i] = WIFEXITED(status) && WEXITSTATUS(status) == 0;
        good += is_right[i];
    }
    printf("%d of %d right\n", good, (int)EXERCISES);
    return good == EXERCISES ? 0 : 1;
}
