/* Budgets by entropy where heads do differ. */
#include <math.h>
#include <string.h>

#include "core/random.h"
#include "tests/suite.h"
#include "train/attention.h"
#include "train/budget.h"

/* q, k and v of two heads in a pass's layer 0, by number of the drawing. A token that matters has a query and a key of its own,
 * of one length; the others have next to none. In head 0, which is flat, seven of eight pairs matter; in head 1, which is
 * sharp, one of 32. */
static void draw_flat_and_sharp(const pass *p, uint64_t drawing)
{
    const store *qkv = &p->layer[0].qkv;
    const int64_t dim = p->m->shape.dim, heads = 2;
    for (int64_t row = 0; row < p->rows; row++)
        for (int64_t vector = 0; vector < 3 * heads; vector++) {
            real *x = (real *)qkv->data + row * qkv->width + vector * dim;
            const bool value = vector / heads == 2, sharp = vector % heads == 1;
            const bool matters = sharp ? row / 2 % 32 == 11 : row / 2 % 8 != 3;
            double square = 0;
            for (int64_t i = 0; i < dim; i++) {
                const uint64_t at = (uint64_t)((row * 3 * heads + vector) * dim + i);
                x[i] = (real)lh_random_uniform(drawing, 0, at) - (real)0.5;
                square += (double)(x[i] * x[i]);
            }
            const double length = (value ? 4 : 8) * (matters ? 1 : 0.02);
            for (int64_t i = 0; i < dim; i++)
                x[i] *= (real)(length / sqrt(square));
        }
}

static double squared_distance(const store *a, const store *b, int64_t rows)
{
    double sum = 0;
    for (int64_t i = 0; i < rows * a->width; i++) {
        const double d = (double)((const real *)a->data)[i] - (double)((const real *)b->data)[i];
        sum += d * d;
    }
    return sum;
}

/* Where heads do differ: budgets go where the formula sends them, and what attention gives is nearer to dense attention's
 * than with even ones, at the same number of rows. */
START_TEST(uneven_budgets_serve_unlike_heads_better)
{
    settings s;
    settings_default(&s);
    strcpy(s.budget, "entropy");
    strcpy(s.backend, "ref");
    s.width = s.hidden = 32;
    s.layers = 1;
    s.heads = s.kv_heads = 2;
    s.dim = 16;
    s.context = 256;
    s.levels = 2;
    s.topk = 64;
    s.tile_topk = 32;
    const model_shape shape = settings_shape(&s);
    bool dense[MAX_LAYERS] = {false};
    for (uint64_t drawing = 1; drawing <= 5; drawing++) {
        model m;
        pass even, exact;
        budget b;
        ck_assert_int_eq(model_create(&shape, 1, true, &m, NULL), LH_OK);
        ck_assert_int_eq(budget_create(&s, &b, NULL), LH_OK);
        pass_options o = settings_pass(&s, true, dense);
        o.group_tile_topk = b.tile_topk;
        const pass_options all = settings_pass(&s, false, dense);
        ck_assert_int_eq(pass_create(&m, &o, &even, NULL), LH_OK);
        ck_assert_int_eq(pass_create(&m, &all, &exact, NULL), LH_OK);
        draw_flat_and_sharp(&even, drawing);
        draw_flat_and_sharp(&exact, drawing);
        ck_assert_int_eq(pass_attend(&exact, 0, false, NULL), LH_OK);
        ck_assert_int_eq(pass_attend(&even, 0, false, NULL), LH_OK);
        const store *out = &even.layer[0].attention, *wanted = &exact.layer[0].attention;
        const double before = squared_distance(out, wanted, even.rows);
        ck_assert_int_eq(budget_measure(&even, &b, NULL), LH_OK);
        budget_share(&s, &b);
        ck_assert_int_eq(pass_regroup(&even, NULL), LH_OK);
        ck_assert_int_eq(pass_attend(&even, 0, false, NULL), LH_OK);
        const double after = squared_distance(out, wanted, even.rows);
        /* 7/8 and 1/32 of the entries count; 64 rows of tiles shared out so are 61.8 and 2.2, of at most 64 and at least 8. */
        ck_assert_double_eq_tol(b.spread[0], 0.875, 0.01);
        ck_assert_double_eq_tol(b.spread[1], 1 / 32.0, 0.01);
        ck_assert_int_eq(b.tile_topk[0], 56);
        ck_assert_int_eq(b.tile_topk[1], 8);
        ck_assert_msg(after < 0.6 * before, "squared error %g, with even budgets %g", after, before);
        pass_destroy(&even);
        pass_destroy(&exact);
        budget_destroy(&b);
        model_destroy(&m);
    }
    ck_assert_int_eq(lh_alloc_live(), 0);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("train_heads");
    TCase *heads = suite_case(suite, "heads");
    tcase_add_test(heads, uneven_budgets_serve_unlike_heads_better);
    return suite_run(suite);
}
