/*
 * Training in a memory that the host cannot follow pointers into, on the processor.
 *
 * The table under test hands out addresses with a bit set that no address of a process has, fills what it hands out with
 * NaNs, and calls the processor's own kernels with the bit cleared; plans that ask for its memory and stream are made over
 * host memory instead (the linker's --wrap). So a run through it writes the very checkpoint of a run without it, and a
 * dereference where a call of the table was due is a segmentation fault.
 */
#include <stdio.h>
#include <string.h>

#include "tests/small_run.h"
#include "tests/suite.h"
#include "train/kernels.h"
#include "train/trainer.h"

enum {
    MOST_PLANS = 64
};
static const uintptr_t apart_bit =
    (uintptr_t)(UINT64_C(1) << 54); /* below the byte that some processors ignore */

static int64_t live, takes,
    fail_at;                /* pieces of memory not given back; taken in all; the one that is refused */
static int streams, closed; /* the address of `streams` names the stream */

/* ---- the table ------------------------------------------------------------------------------------------------ */

/* The host's address; only what `take` gave out may reach the table. */
static void *near(const void *there)
{
    ck_assert_msg(!there || ((uintptr_t)there & apart_bit), "%p is the host's, wanted memory of the table",
                  there);
    return (void *)((uintptr_t)there & ~apart_bit);
}
static void *host_only(const void *here)
{
    ck_assert_msg(!((uintptr_t)here & apart_bit), "%p is the table's, wanted memory of the host", here);
    return (void *)(uintptr_t)here;
}

#define HOST (&host_arithmetic)

static lh_status take(const lh_arithmetic *on, size_t bytes, const char *what, void **memory, lh_error *error)
{
    (void)on;
    *memory = NULL;
    if (++takes == fail_at)
        return lh_fail(error, LH_NO_MEMORY, "%s: %zu bytes were refused", what, bytes);
    const lh_status status = lh_alloc(memory, bytes, what, error);
    if (status == LH_OK) {
        live++;
        memset(*memory, 0xff, bytes);
        *memory = (void *)((uintptr_t)*memory | apart_bit);
    }
    return status;
}

static void give(const lh_arithmetic *on, void *memory)
{
    (void)on;
    live -= memory != NULL;
    lh_free(near(memory));
}

static void put(const lh_arithmetic *on, void *to, const void *host, size_t bytes)
{
    (void)on;
    memcpy(near(to), host_only(host), bytes);
}

static lh_status get(const lh_arithmetic *on, void *host, const void *from, size_t bytes, lh_error *error)
{
    (void)on, (void)error;
    memcpy(host_only(host), near(from), bytes);
    return LH_OK;
}

static void copy(const lh_arithmetic *on, void *to, const void *from, size_t bytes)
{
    (void)on;
    memcpy(near(to), near(from), bytes);
}

static void zero(const lh_arithmetic *on, void *to, size_t bytes)
{
    (void)on;
    memset(near(to), 0, bytes);
}

static void product(const lh_arithmetic *on, bool ta, bool tb, int64_t m, int64_t n, int64_t k, const real *a,
                    int64_t lda, const real *b, int64_t ldb, real beta, real *c, int64_t ldc)
{
    (void)on;
    HOST->product(HOST, ta, tb, m, n, k, near(a), lda, near(b), ldb, beta, near(c), ldc);
}

static void norm_forward(const lh_arithmetic *on, int64_t rows, int64_t width, const real *x, const real *w,
                         real *y)
{
    (void)on;
    HOST->norm_forward(HOST, rows, width, near(x), near(w), near(y));
}

static void norm_backward(const lh_arithmetic *on, int64_t rows, int64_t width, const real *dy, const real *x,
                          const real *w, real *dx, real *dw, real *partial)
{
    (void)on;
    HOST->norm_backward(HOST, rows, width, near(dy), near(x), near(w), near(dx), near(dw), near(partial));
}

static void rotary(const lh_arithmetic *on, int64_t rows, int64_t stride, int64_t heads, int64_t dim,
                   int64_t first, int64_t tokens, const real *cosines, const real *sines, bool backward,
                   real *x)
{
    (void)on;
    HOST->rotary(HOST, rows, stride, heads, dim, first, tokens, near(cosines), near(sines), backward,
                 near(x));
}

static void swiglu_forward(const lh_arithmetic *on, int64_t rows, int64_t hidden, const real *gate_up,
                           real *y)
{
    (void)on;
    HOST->swiglu_forward(HOST, rows, hidden, near(gate_up), near(y));
}

static void swiglu_backward(const lh_arithmetic *on, int64_t rows, int64_t hidden, const real *dy,
                            const real *gate_up, real *d_gate_up)
{
    (void)on;
    HOST->swiglu_backward(HOST, rows, hidden, near(dy), near(gate_up), near(d_gate_up));
}

static void cross_entropy(const lh_arithmetic *on, int64_t rows, const uint8_t *targets, real scale,
                          real *logits, double *losses)
{
    (void)on;
    HOST->cross_entropy(HOST, rows, near(targets), scale, near(logits), near(losses));
}

static void embed(const lh_arithmetic *on, int64_t rows, int64_t width, const uint8_t *bytes,
                  const real *table, real *x)
{
    (void)on;
    HOST->embed(HOST, rows, width, near(bytes), near(table), near(x));
}

static void embed_backward(const lh_arithmetic *on, int64_t rows, int64_t width, const uint8_t *bytes,
                           const real *dx, real *table)
{
    (void)on;
    HOST->embed_backward(HOST, rows, width, near(bytes), near(dx), near(table));
}

static void to_bf16(const lh_arithmetic *on, int64_t n, const real *from, uint16_t *to)
{
    (void)on;
    HOST->to_bf16(HOST, n, near(from), near(to));
}

static void from_bf16(const lh_arithmetic *on, int64_t n, const uint16_t *from, real *to)
{
    (void)on;
    HOST->from_bf16(HOST, n, near(from), near(to));
}

static void round_bf16(const lh_arithmetic *on, int64_t n, const real *from, real *to)
{
    (void)on;
    HOST->round_bf16(HOST, n, near(from), near(to));
}

static lh_status length(const lh_arithmetic *on, int64_t n, const real *x, double *root, lh_error *error)
{
    (void)on;
    return HOST->length(HOST, n, near(x), root, error);
}

static void adam_of(const lh_arithmetic *on, int64_t n, const lh_adam_step *step, real *gradient, real *m,
                    real *v, real *w)
{
    (void)on;
    HOST->adam(HOST, n, step, near(gradient), near(m), near(v), near(w));
}

static void close_table(const lh_arithmetic *on)
{
    (void)on;
    closed++;
}

static lh_arithmetic apart(void)
{
    lh_arithmetic table = host_arithmetic;
    table.host = false;
    table.stream = &streams;
    table.close = close_table;
    table.take = take;
    table.give = give;
    table.put = put;
    table.get = get;
    table.copy = copy;
    table.zero = zero;
    table.product = product;
    table.norm_forward = norm_forward;
    table.norm_backward = norm_backward;
    table.rotary = rotary;
    table.swiglu_forward = swiglu_forward;
    table.swiglu_backward = swiglu_backward;
    table.cross_entropy = cross_entropy;
    table.embed = embed;
    table.embed_backward = embed_backward;
    table.to_bf16 = to_bf16;
    table.from_bf16 = from_bf16;
    table.round_bf16 = round_bf16;
    table.length = length;
    table.adam = adam_of;
    return table;
}

/* ---- attention ------------------------------------------------------------------------------------------------- */

static const lh_plan *plans[MOST_PLANS]; /* over the table's memory */

lh_status __real_lh_plan_create(const lh_config *config, const lh_options *options, lh_plan **plan,
                                lh_error *error);
lh_status __real_lh_forward(lh_plan *plan, const lh_tensor *trace, lh_error *error);
lh_status __real_lh_backward(lh_plan *plan, const lh_tensor *trace, lh_error *error);
lh_status __real_lh_run_stage(lh_plan *plan, lh_stage stage, const lh_tensor *trace, lh_error *error);
lh_status __wrap_lh_plan_create(const lh_config *config, const lh_options *options, lh_plan **plan,
                                lh_error *error);
void __real_lh_plan_destroy(lh_plan *plan);
void __wrap_lh_plan_destroy(lh_plan *plan);
lh_status __wrap_lh_forward(lh_plan *plan, const lh_tensor *trace, lh_error *error);
lh_status __wrap_lh_backward(lh_plan *plan, const lh_tensor *trace, lh_error *error);
lh_status __wrap_lh_run_stage(lh_plan *plan, lh_stage stage, const lh_tensor *trace, lh_error *error);

lh_status __wrap_lh_plan_create(const lh_config *config, const lh_options *options, lh_plan **plan,
                                lh_error *error)
{
    lh_options on_host = *options;
    const bool there = options->memory == LH_ON_DEVICE;
    if (there) {
        ck_assert_ptr_eq(options->stream, &streams);
        on_host.memory = LH_HOST;
        on_host.stream = NULL;
    }
    const lh_status status = __real_lh_plan_create(config, &on_host, plan, error);
    for (int i = 0; i < MOST_PLANS && status == LH_OK && there; i++) {
        if (!plans[i]) {
            plans[i] = *plan;
            return status;
        }
    }
    ck_assert(!there || status != LH_OK);
    return status;
}

void __wrap_lh_plan_destroy(lh_plan *plan)
{
    for (int i = 0; i < MOST_PLANS && plan; i++)
        plans[i] = plans[i] == plan ? NULL : plans[i];
    __real_lh_plan_destroy(plan);
}

/* A trace with the host's addresses; near() insists on the table's. */
static const lh_tensor *translated(const lh_plan *plan, const lh_tensor *trace,
                                   lh_tensor room[LH_TENSOR_COUNT])
{
    for (int i = 0; i < MOST_PLANS; i++) {
        if (plans[i] != plan)
            continue;
        for (int id = 0; id < LH_TENSOR_COUNT; id++) {
            room[id] = trace[id];
            room[id].data = near(trace[id].data);
        }
        return room;
    }
    return trace;
}

lh_status __wrap_lh_forward(lh_plan *plan, const lh_tensor *trace, lh_error *error)
{
    lh_tensor room[LH_TENSOR_COUNT];
    return __real_lh_forward(plan, translated(plan, trace, room), error);
}

lh_status __wrap_lh_backward(lh_plan *plan, const lh_tensor *trace, lh_error *error)
{
    lh_tensor room[LH_TENSOR_COUNT];
    return __real_lh_backward(plan, translated(plan, trace, room), error);
}

lh_status __wrap_lh_run_stage(lh_plan *plan, lh_stage stage, const lh_tensor *trace, lh_error *error)
{
    lh_tensor room[LH_TENSOR_COUNT];
    return __real_lh_run_stage(plan, stage, translated(plan, trace, room), error);
}

/* ---- runs ------------------------------------------------------------------------------------------------------- */

static const char *folder;

static void setup(void)
{
    folder = small_run_folder();
    live = takes = fail_at = closed = 0;
    ck_assert_int_eq(product_prepare(NULL), LH_OK); /* as passes do on the processor alone */
}

static void teardown(void)
{
    small_run_remove(folder);
}

/* More rows than are worked on at a time, both stages, all that reads a pass: probes, held-out loss, budgets. */
static settings small(const char *dtype, const char *budgets)
{
    settings s = small_run(folder);
    s.width = 16;
    s.dim = 4;
    s.hidden = 24;
    s.context = 1280; /* two blocks of rows */
    s.micro_batch = 1;
    s.topk = 64;
    s.tile_topk = 32;
    s.warmup = 2;
    s.lighthouse_steps = 4;
    s.dense_steps = 2;
    s.probes = 2;
    s.eval_every = 2;
    s.held_out_windows = 2;
    s.checkpoint_every = 2;
    s.budget_every = 2;
    s.tied = strcmp(budgets, "entropy") == 0;
    snprintf(s.dtype, sizeof s.dtype, "%s", dtype);
    snprintf(s.budget, sizeof s.budget, "%s", budgets);
    return s;
}

static volatile sig_atomic_t stop;

static lh_status stop_at_three(void *user, const trainer *t, const step_report *r, lh_error *error)
{
    (void)t, (void)error;
    stop = *(const bool *)user && r->step == 3;
    return LH_OK;
}

static lh_status go(const settings *s, const char *name, const lh_arithmetic *on, enum trainer_start start,
                    bool halfway, lh_error *error)
{
    static trainer t;
    char run[300];
    const run_options o = {.start = start, .stop = &stop, .on = on};
    stop = 0;
    snprintf(run, sizeof run, "%.200s/%s", folder, name);
    lh_status status = trainer_open(s, run, &o, &t, error);
    if (status == LH_OK) {
        ck_assert(t.model.on == (on ? on : HOST));
        status = trainer_run(&t, stop_at_three, &halfway, error);
        trainer_close(&t);
    }
    return status;
}

static void same_checkpoints(const char *one, const char *other)
{
    static char bytes[2][1 << 20];
    size_t size[2];
    const char *const names[] = {one, other};
    for (int i = 0; i < 2; i++) {
        char path[300];
        snprintf(path, sizeof path, "%.200s/%s/checkpoint.safetensors", folder, names[i]);
        size[i] = read_bytes(path, bytes[i], sizeof bytes[i]);
        ck_assert_uint_lt(size[i], sizeof bytes[i]);
    }
    ck_assert_uint_eq(size[0], size[1]);
    ck_assert_mem_eq(bytes[0], bytes[1], size[0]);
}

static void check_runs(const settings *s)
{
    const lh_arithmetic there = apart();
    lh_error error = {LH_OK, ""};
    ck_assert_msg(go(s, "here", NULL, START_NEW, false, &error) == LH_OK, "%s", error.text);
    ck_assert_int_eq(takes, 0);
    ck_assert_msg(go(s, "there", &there, START_NEW, false, &error) == LH_OK, "%s", error.text);
    ck_assert_int_gt(takes, 4);
    same_checkpoints("here", "there");
    ck_assert_int_eq(go(s, "moves", &there, START_NEW, true, &error), LH_OK);
    ck_assert_int_eq(go(s, "moves", NULL, START_RESUME, false, &error), LH_OK);
    same_checkpoints("here", "moves");
    ck_assert_int_eq(go(s, "returns", NULL, START_NEW, true, &error), LH_OK);
    ck_assert_int_eq(go(s, "returns", &there, START_RESUME, false, &error), LH_OK);
    same_checkpoints("here", "returns");
    ck_assert_int_eq(closed, 3);
    ck_assert_int_eq(live, 0);
}

START_TEST(a_run_apart_writes_the_same_checkpoint)
{
    const settings s = small("f32", "even");
    check_runs(&s);
}
END_TEST

START_TEST(a_run_apart_in_bfloat16_writes_the_same_checkpoint)
{
    const settings s = small("bf16", "even");
    check_runs(&s);
}
END_TEST

START_TEST(a_run_apart_with_budgets_writes_the_same_checkpoint)
{
    const settings s = small("f32", "entropy");
    check_runs(&s);
}
END_TEST

/* Whichever piece of memory is refused: said in a line, and all of it given back. */
START_TEST(refused_memory_is_said_and_given_back)
{
    const lh_arithmetic there = apart();
    settings s = small("bf16", "entropy");
    lh_error error;
    s.context = 256;
    s.batch = 1;
    for (int64_t n = 1;; n++) {
        char run[32];
        snprintf(run, sizeof run, "refused-%d", (int)n);
        takes = 0;
        fail_at = n;
        const lh_status status = go(&s, run, &there, START_NEW, false, &error);
        ck_assert_int_eq(live, 0);
        ck_assert_int_eq(closed, n);
        if (takes < n)
            return;
        expect_status(status, LH_NO_MEMORY, &error, "bytes were refused");
    }
}
END_TEST

int main(void)
{
    if (apart_bit == 0) {
        printf("SKIP: addresses here have no bit to spare\n");
        return 77;
    }
    Suite *suite = suite_create("train_apart");
    TCase *runs = suite_case(suite, "runs");
    tcase_add_checked_fixture(runs, setup, teardown);
    tcase_add_test(runs, a_run_apart_writes_the_same_checkpoint);
    tcase_add_test(runs, a_run_apart_in_bfloat16_writes_the_same_checkpoint);
    tcase_add_test(runs, a_run_apart_with_budgets_writes_the_same_checkpoint);
    TCase *memory = suite_case(suite, "memory");
    tcase_add_checked_fixture(memory, setup, teardown);
    tcase_add_test(memory, refused_memory_is_said_and_given_back);
    return suite_run(suite);
}
