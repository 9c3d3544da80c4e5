/*
 * A decoder's arithmetic on devices: every call of every backend that offers one against the processor's, on odd shapes, and
 * runs that begin on a device and go on beside it.
 *
 * What a call must not touch is compared too: arrays are longer than the call knows.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/backend.h"
#include "core/random.h"
#include "tests/small_run.h"
#include "tests/suite.h"
#include "train/kernels.h"
#include "train/trainer.h"

enum {
    PAST = 33 /* elements behind the end */
};
static const double near = 2e-6;   /* of the largest value: elementwise work, and sums of a few hundred */
static const double summed = 1e-5; /* sums of thousands in another order */

/* The same array in both memories. */
typedef struct both {
    void *here, *there;
    int64_t n; /* with what is past the end */
    size_t element;
} both;

static const lh_arithmetic *on;

static both make(int64_t n, size_t element)
{
    both b = {.n = n + PAST, .element = element};
    lh_error error;
    const size_t bytes = (size_t)b.n * element;
    ck_assert_int_eq(lh_alloc(&b.here, bytes, "array", &error), LH_OK);
    ck_assert_msg(on->take(on, bytes, "array", &b.there, &error) == LH_OK, "%s", error.text);
    return b;
}

static void send(const both *b)
{
    on->put(on, b->there, b->here, (size_t)b->n * b->element);
}

/* Gaussians times `size`. */
static both gaussians(int64_t n, uint64_t seed, double size)
{
    both b = make(n, sizeof(real));
    for (int64_t i = 0; i < b.n; i++)
        ((real *)b.here)[i] = (real)(size * lh_random_gaussian(seed, 0, (uint64_t)i));
    send(&b);
    return b;
}

static both bytes_of(int64_t n, uint64_t seed)
{
    both b = make(n, 1);
    for (int64_t i = 0; i < b.n; i++) /* some often, some never */
        ((uint8_t *)b.here)[i] = (uint8_t)(250 * pow(lh_random_uniform(seed, 0, (uint64_t)i), 4));
    send(&b);
    return b;
}

static double value(const void *array, size_t element, int64_t i)
{
    return element == sizeof(double)    ? ((const double *)array)[i]
           : element == sizeof(real)    ? (double)((const real *)array)[i]
           : element == sizeof(int16_t) ? (double)((const uint16_t *)array)[i]
                                        : (double)((const uint8_t *)array)[i];
}

/* Compares to within `allowed` of the largest value, and gives both back. */
static void agree(both *b, double allowed, const char *what)
{
    lh_error error;
    void *got;
    double largest = 0;
    const size_t bytes = (size_t)b->n * b->element;
    ck_assert_int_eq(lh_alloc(&got, bytes, "array", &error), LH_OK);
    ck_assert_msg(on->get(on, got, b->there, bytes, &error) == LH_OK, "%s", error.text);
    for (int64_t i = 0; i < b->n; i++) {
        const double here = fabs(value(b->here, b->element, i));
        if (here > largest) /* with fmax gcc 12.2 for AArch64 dies of an internal error at -O3 */
            largest = here;
    }
    for (int64_t i = 0; i < b->n; i++) {
        const double want = value(b->here, b->element, i), found = value(got, b->element, i);
        ck_assert_msg(fabs(found - want) <= allowed * largest,
                      "%s: element %lld of %lld is %.9g, wanted %.9g", what, (long long)i, (long long)b->n,
                      found, want);
    }
    lh_free(got);
    lh_free(b->here);
    on->give(on, b->there);
}

/* For either side, x(b) is the array there. */
#define ON_BOTH(...)                                                                                         \
    for (int side = 0; side < 2; side++) {                                                                   \
        const lh_arithmetic *at = side ? on : &host_arithmetic;                                              \
        __VA_ARGS__;                                                                                         \
    }
#define x(b) (side ? (b).there : (b).here)

static void check_products(double allowed)
{
    static const int64_t shapes[][3] = {
        {1, 1, 1}, {7, 256, 33}, {200, 96, 513}, {129, 65, 2000}, {16, 40, 4096}};
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
        for (int which = 0; which < 8; which++) {
            const int64_t m = shapes[i][0], n = shapes[i][1], k = shapes[i][2];
            const bool ta = which & 1, tb = which & 2;
            const real beta = which & 4 ? 1 : 0;
            const int64_t lda = (ta ? m : k) + 3, ldb = (tb ? k : n) + 5, ldc = n + 1;
            both a = gaussians(lda * (ta ? k : m), 1, 1), b = gaussians(ldb * (tb ? n : k), 2, 1),
                 c = gaussians(ldc * m, 3, 1);
            char what[96];
            snprintf(what, sizeof what, "product %dx%dx%d %d", (int)m, (int)n, (int)k, which);
            ON_BOTH(at->product(at, ta, tb, m, n, k, x(a), lda, x(b), ldb, beta, x(c), ldc))
            agree(&a, 0, what);
            agree(&b, 0, what);
            agree(&c, allowed, what);
        }
}

static void check_norms(int64_t rows, int64_t width)
{
    both input = gaussians(rows * width, 1, 3), w = gaussians(width, 2, 1), y = gaussians(rows * width, 3, 1),
         dy = gaussians(rows * width, 4, 1), dx = gaussians(rows * width, 5, 1), dw = gaussians(width, 6, 1);
    real *partial[2];
    const int64_t blocks[2] = {(rows - 1) / host_arithmetic.block + 1, (rows - 1) / on->block + 1};
    const size_t here = (size_t)(blocks[0] * host_arithmetic.norm_groups * width) * sizeof(real);
    const size_t there = (size_t)(blocks[1] * on->norm_groups * width) * sizeof(real);
    ck_assert_int_eq(lh_alloc((void **)&partial[0], here, "partial", NULL), LH_OK);
    ck_assert_int_eq(on->take(on, there, "partial", (void **)&partial[1], NULL), LH_OK);
    ON_BOTH(at->norm_forward(at, rows, width, x(input), x(w), x(y)))
    ON_BOTH(at->norm_backward(at, rows, width, x(dy), x(input), x(w), x(dx), x(dw), partial[side]))
    agree(&input, 0, "norm's x");
    agree(&w, 0, "norm's w");
    agree(&dy, 0, "norm's dy");
    agree(&y, near, "norm");
    agree(&dx, near, "norm's dx");
    agree(&dw, summed, "norm's dw");
    lh_free(partial[0]);
    on->give(on, partial[1]);
}

static void check_rotary(int64_t rows, int64_t heads, int64_t dim)
{
    const int64_t tokens = 50, first = 41, stride = (heads + 1) * dim + 2;
    both angles = make(2 * tokens * dim / 2, sizeof(real)), rotated = gaussians(rows * stride, 1, 1),
         back = gaussians(rows * stride, 2, 1);
    memset(angles.here, 0, (size_t)angles.n * angles.element);
    rotary_table(tokens, dim, 10000, angles.here, (real *)angles.here + tokens * dim / 2);
    send(&angles);
    ON_BOTH({
        const real *cosines = x(angles), *sines = cosines + tokens * dim / 2;
        at->rotary(at, rows, stride, heads, dim, first, tokens, cosines, sines, false, x(rotated));
        at->rotary(at, rows, stride, heads, dim, first, tokens, cosines, sines, true, x(back));
    })
    agree(&angles, 0, "rotary's angles");
    agree(&rotated, near, "rotary");
    agree(&back, near, "rotary backward");
}

static void check_swiglu(int64_t rows, int64_t hidden)
{
    both gate_up = gaussians(rows * 2 * hidden, 1, 4), y = gaussians(rows * hidden, 2, 1),
         dy = gaussians(rows * hidden, 3, 1), d_gate_up = gaussians(rows * 2 * hidden, 4, 1);
    ON_BOTH(at->swiglu_forward(at, rows, hidden, x(gate_up), x(y)))
    ON_BOTH(at->swiglu_backward(at, rows, hidden, x(dy), x(gate_up), x(d_gate_up)))
    agree(&gate_up, 0, "swiglu's x");
    agree(&dy, 0, "swiglu's dy");
    agree(&y, near, "swiglu");
    agree(&d_gate_up, near, "swiglu backward");
}

static void check_loss(int64_t rows)
{
    both logits = gaussians(rows * BYTES, 1, 5), targets = bytes_of(rows, 2),
         losses = make(rows, sizeof(double));
    for (int64_t i = 0; i < losses.n; i++)
        ((double *)losses.here)[i] = (double)i / (double)losses.n;
    send(&losses);
    ON_BOTH(at->cross_entropy(at, rows, x(targets), (real)0.25, x(logits), x(losses)))
    agree(&targets, 0, "targets");
    agree(&losses, near, "losses");
    agree(&logits, near, "gradient of the loss");
}

static void check_embedding(int64_t rows, int64_t width)
{
    both table = gaussians(BYTES * width, 1, 1), text = bytes_of(rows, 2),
         into = gaussians(rows * width, 3, 1), dx = gaussians(rows * width, 4, 1),
         d_table = gaussians(BYTES * width, 5, 1);
    ON_BOTH(at->embed(at, rows, width, x(text), x(table), x(into)))
    ON_BOTH(at->embed_backward(at, rows, width, x(text), x(dx), x(d_table)))
    agree(&table, 0, "table");
    agree(&text, 0, "bytes");
    agree(&dx, 0, "embedding's dx");
    agree(&into, 0, "embedding");
    agree(&d_table, summed, "embedding backward");
}

static void check_bf16(int64_t n)
{
    both wide = gaussians(n, 1, 1), narrow = make(n, sizeof(uint16_t)), again = gaussians(n, 2, 1),
         rounded = gaussians(n, 3, 1);
    /* Ties, the largest that rounds down, a subnormal. */
    static const real special[] = {0x1.01p0f, 0x1.03p0f, -0x1.01p-3f, 0x1.00fffep0f, 0x1p-130f, 0, -0.0f};
    memcpy(wide.here, special, sizeof special);
    memset(narrow.here, 0x5a, (size_t)narrow.n * narrow.element);
    send(&wide);
    send(&narrow);
    ON_BOTH({
        at->to_bf16(at, n, x(wide), x(narrow));
        at->from_bf16(at, n, x(narrow), x(again));
        at->round_bf16(at, n, x(wide), x(rounded));
    })
    agree(&wide, 0, "to be rounded");
    agree(&narrow, 0, "bfloat16");
    agree(&again, 0, "widened bfloat16");
    agree(&rounded, 0, "rounded to bfloat16");
}

static void check_descent(int64_t n)
{
    static const lh_adam_step step = {0.9f, 0.95f, 0.004f, 1.3f, 0.999f, 0.7f};
    both g = gaussians(n, 1, 1), m = gaussians(n, 2, 1), v = gaussians(n, 3, 1), w = gaussians(n, 4, 1);
    double length[2];
    for (int64_t i = 0; i < n; i++)
        ((real *)v.here)[i] = fabsf(((real *)v.here)[i]);
    send(&v);
    ON_BOTH(ck_assert_int_eq(at->length(at, n, x(g), &length[side], NULL), LH_OK))
    ck_assert_double_eq_tol(length[0], length[1], near * length[0]);
    ON_BOTH(at->adam(at, n, &step, x(g), x(m), x(v), x(w)))
    agree(&g, 0, "gradient");
    agree(&m, near, "first moments");
    agree(&v, near, "second moments");
    agree(&w, near, "weights");
}

/* A failure is told once, and what comes after it works. */
static void check_errors(void)
{
    void *memory;
    lh_error error;
    double two[2] = {1, 2}, got[2];
    expect_status(on->take(on, SIZE_MAX >> 4, "an ocean", &memory, &error), LH_NO_MEMORY, &error, "an ocean");
    ck_assert_ptr_null(memory);
    ck_assert_int_eq(on->take(on, sizeof two, "two", &memory, &error), LH_OK);
    on->put(on, memory, two, sizeof two);
    ck_assert_int_eq(on->get(on, got, memory, sizeof got, &error), LH_OK);
    ck_assert_mem_eq(two, got, sizeof two);
    on->zero(on, memory, sizeof two[0]);
    on->copy(on, (double *)memory + 1, memory, sizeof two[0]);
    ck_assert_int_eq(on->get(on, got, memory, sizeof got, &error), LH_OK);
    ck_assert(got[0] == 0 && got[1] == 0);
    on->give(on, memory);
}

/* The i-th backend with an arithmetic that opens here; NULL past the last. */
static const char *offered(int i, bool bf16, const lh_arithmetic **opened, char why[256])
{
    lh_known_backend known;
    for (int at = 0; lh_backend_known(at, &known); at++) {
        lh_error error;
        int devices;
        if (!known.row || !known.row->arithmetic || lh_device_count(known.name, &devices, &error) != LH_OK)
            continue;
        const lh_status status = known.row->arithmetic(0, bf16, opened, &error);
        if (status == LH_UNSUPPORTED) {
            snprintf(why, 256, "%.255s", error.text);
            continue;
        }
        if (status == LH_OK && i-- == 0)
            return known.name;
        if (status == LH_OK)
            (*opened)->close(*opened);
        else
            snprintf(why, 256, "FAILED: %.247s", error.text);
    }
    return NULL;
}

START_TEST(every_call_agrees_with_the_processor)
{
    static const int64_t rows[] = {1, 31, 300, 2049};
    char why[256];
    int checked = 0;
    ck_assert_int_eq(product_prepare(NULL), LH_OK);
    for (int i = 0; offered(i, false, &on, why); i++) {
        check_errors();
        check_products(summed);
        for (size_t r = 0; r < sizeof rows / sizeof *rows; r++) {
            check_norms(rows[r], 1 + 5 * (int64_t)r * 31);
            check_norms(rows[r], 512);
            check_rotary(rows[r], 3, 10);
            check_swiglu(rows[r], 67);
            check_loss(rows[r]);
            check_embedding(rows[r], 45);
            check_bf16(rows[r] + 7);
            check_descent(rows[r]);
        }
        check_descent(5000001);
        on->close(on);
        checked++;
    }
    ck_assert_int_gt(checked, 0);
    for (int i = 0; offered(i, true, &on, why); i++) {
        check_products(1e-2);
        on->close(on);
    }
}
END_TEST

static settings small(const char *folder, const char *backend, const char *dtype, int64_t steps)
{
    settings s = small_run(folder);
    s.width = 48;
    s.hidden = 80;
    s.micro_batch = 1;
    s.warmup = 4;
    s.lighthouse_steps = steps;
    s.dense_steps = 4;
    s.probes = 2;
    s.eval_every = 4;
    s.held_out_windows = 2;
    s.checkpoint_every = 3;
    snprintf(s.backend, sizeof s.backend, "%s", backend);
    snprintf(s.dtype, sizeof s.dtype, "%s", dtype);
    return s;
}

static const volatile sig_atomic_t *stop_after;
static volatile sig_atomic_t stopped;
static int64_t steps_left;

static lh_status count_down(void *user, const trainer *t, const step_report *r, lh_error *error)
{
    (void)t, (void)error;
    *(double *)user = r->loss;
    stopped = --steps_left <= 0;
    return LH_OK;
}

/* Runs or goes on for so many steps; whether on a device; the last loss. */
static double go(const settings *s, const char *folder, const char *name, enum trainer_start start,
                 int64_t steps, bool *on_device)
{
    static trainer t;
    char run[300];
    double loss = 0;
    lh_error error = {LH_OK, ""};
    stopped = 0;
    stop_after = &stopped;
    steps_left = steps;
    snprintf(run, sizeof run, "%.200s/%s", folder, name);
    ck_assert_msg(trainer_open(s, run, &(run_options){.start = start, .stop = stop_after}, &t, &error) ==
                      LH_OK,
                  "%s", error.text);
    *on_device = !t.model.on->host;
    ck_assert_msg(trainer_run(&t, count_down, &loss, &error) == LH_OK, "%s", error.text);
    trainer_close(&t);
    return loss;
}

static void same_files(const char *folder, const char *one, const char *other)
{
    static char bytes[2][1 << 22];
    size_t size[2];
    const char *const names[] = {one, other};
    for (int i = 0; i < 2; i++) {
        char path[300];
        snprintf(path, sizeof path, "%.200s/%s/checkpoint.safetensors", folder, names[i]);
        size[i] = read_bytes(path, bytes[i], sizeof bytes[i]);
    }
    ck_assert_uint_eq(size[0], size[1]);
    ck_assert_mem_eq(bytes[0], bytes[1], size[0]);
}

/* From the device to the processor and back, and the same bits twice on the device. */
START_TEST(a_run_moves_between_device_and_processor)
{
    static const char *const dtypes[] = {"f32", "bf16"};
    char command[320], why[256];
    const char *folder = small_run_folder();
    for (int i = 0; i < 2; i++) {
        const char *name = offered(0, false, &on, why);
        bool device;
        ck_assert_ptr_nonnull(name);
        on->close(on);
        const settings there = small(folder, name, dtypes[i], 8), here = small(folder, "ref", dtypes[i], 8);
        const double allowed = i == 0 ? 1e-3 : 2e-2;
        const double want = go(&here, folder, "here", START_NEW, 100, &device);
        ck_assert(!device);
        const double got = go(&there, folder, "there", START_NEW, 100, &device);
        ck_assert(device);
        ck_assert_double_eq_tol(got, want, allowed);
        go(&there, folder, "again", START_NEW, 5, &device);
        go(&there, folder, "again", START_RESUME, 100, &device);
        same_files(folder, "there", "again");
        go(&there, folder, "moves", START_NEW, 4, &device);
        go(&here, folder, "moves", START_RESUME, 4, &device);
        ck_assert(!device);
        ck_assert_double_eq_tol(go(&there, folder, "moves", START_RESUME, 100, &device), want, allowed);
        ck_assert(device);
        snprintf(command, sizeof command, "cd '%s' && rm -rf here there again moves", folder);
        ck_assert_int_eq(system(command), 0);
    }
    small_run_remove(folder);
}
END_TEST

int main(void)
{
    char why[256] = "no backend that computes a decoder has a device here";
    if (!offered(0, false, &on, why)) {
        printf("%s%s\n", strncmp(why, "FAILED", 6) == 0 ? "" : "SKIP: ", why);
        return strncmp(why, "FAILED", 6) == 0 ? 1 : 77;
    }
    on->close(on);
    setenv("CK_FORK", "no", 1); /* a child cannot go on with a device that its parent has opened */
    Suite *suite = suite_create("train_arithmetic");
    TCase *calls = suite_case(suite, "arithmetic");
    tcase_add_test(calls, every_call_agrees_with_the_processor);
    tcase_add_test(calls, a_run_moves_between_device_and_processor);
    return suite_run(suite);
}
