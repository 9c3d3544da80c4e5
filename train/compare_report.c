/* The comparison as a table and in JSON, of one seed and of several. */
#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "core/json.h"
#include "train/compare.h"

static int64_t all_right(const evaluation *e, int length)
{
    int64_t right = 0;
    for (int d = 0; d < DEPTHS; d++)
        right += e->right[length][d];
    return right;
}

json_t *comparison_json(const comparison *c)
{
    json_t *rows = json_array();
    for (int i = 0; i < COMPARE_RUNS; i++) {
        const compare_row *r = &c->row[i];
        json_t *retrieval = json_array();
        for (int l = 0; l < LENGTHS; l++)
            retrieval = lh_json_append(
                retrieval, json_pack("{s:I s:I s:I}", "length", (json_int_t)r->evaluation.length[l], "right",
                                     (json_int_t)all_right(&r->evaluation, l), "trials",
                                     (json_int_t)(r->evaluation.trials * DEPTHS)));
        rows =
            lh_json_append(rows, json_pack("{s:s s:I s:I s:f s:o s:o s:o s:s}", "run", r->title, "steps",
                                           (json_int_t)r->steps, "tokens", (json_int_t)r->tokens, "seconds",
                                           r->seconds, "train_loss", lh_json_number(r->train_loss),
                                           "held_out_loss", lh_json_number(r->evaluation.held_out),
                                           "retrieval", retrieval, "verdict", r->verdict));
    }
    return json_pack("{s:I s:o s:b s:o s:o}", "seed", (json_int_t)c->seed, "runs", rows, "equal_time_reached",
                     c->equal_time_reached, "step_speedup", lh_json_number(c->step_speedup),
                     "end_to_end_speedup", lh_json_number(c->end_to_end));
}

void comparison_print(const comparison *c, FILE *to)
{
    fprintf(to, "%-20s %6s %10s %9s %9s %11s %9s", "run", "steps", "tokens", "train s", "tokens/s",
            "train loss", "held-out");
    for (int l = 0; l < LENGTHS && c->row[0].evaluation.trials > 0; l++)
        fprintf(to, "   digit@%" PRId64, c->row[0].evaluation.length[l]);
    fprintf(to, "\n");
    for (int i = 0; i < COMPARE_RUNS; i++) {
        const compare_row *r = &c->row[i];
        fprintf(to, "%-20s %6" PRId64 " %10" PRId64 " %9.1f %9.0f %11.4f %9.4f", r->title, r->steps,
                r->tokens, r->seconds, (double)r->tokens / r->seconds, r->train_loss, r->evaluation.held_out);
        for (int l = 0; l < LENGTHS && r->evaluation.trials > 0; l++)
            fprintf(to, " %8" PRId64 "/%-4" PRId64, all_right(&r->evaluation, l),
                    r->evaluation.trials * DEPTHS);
        fprintf(to, "\n");
    }
    if (!c->equal_time_reached)
        fprintf(to,
                "Dense training was done before the two-stage run's time was up: its last row is its end.\n");
    fprintf(
        to,
        "A Lighthouse step is %.2f times as fast as a dense one; the two-stage run %.2f times as fast as dense "
        "training on the same tokens.\n%s\n",
        c->step_speedup, c->end_to_end, c->row[TWO_STAGE].verdict);
}

struct spread {
    double mean, deviation; /* of a sample: over n - 1 */
};

static struct spread spread_of(const double *value, int n)
{
    struct spread s = {0, 0};
    for (int i = 0; i < n; i++)
        s.mean += value[i] / n;
    for (int i = 0; i < n && n > 1; i++)
        s.deviation += (value[i] - s.mean) * (value[i] - s.mean) / (n - 1);
    s.deviation = sqrt(s.deviation);
    return s;
}

/* What a row is measured by, and the differences that seeds have in common. */
static struct spread row_spread(const comparison *c, int n, int row, int measure)
{
    double value[MAX_SEEDS];
    for (int i = 0; i < n; i++) {
        const compare_row *r = &c[i].row[row];
        const double values[] = {r->seconds, r->train_loss, r->evaluation.held_out,
                                 r->evaluation.held_out - c[i].row[TWO_STAGE].evaluation.held_out};
        value[i] = values[measure];
    }
    return spread_of(value, n);
}

static struct spread speed_spread(const comparison *c, int n, bool of_steps)
{
    double value[MAX_SEEDS];
    for (int i = 0; i < n; i++)
        value[i] = of_steps ? c[i].step_speedup : c[i].end_to_end;
    return spread_of(value, n);
}

static json_t *spread_json(struct spread s)
{
    return json_pack("{s:o s:o}", "mean", lh_json_number(s.mean), "deviation", lh_json_number(s.deviation));
}

json_t *comparisons_json(const comparison *c, int n)
{
    static const char *const names[] = {"seconds", "train_loss", "held_out_loss", "held_out_over_two_stage"};
    json_t *seeds = json_array(), *rows = json_array();
    for (int i = 0; i < n; i++)
        seeds = lh_json_append(seeds, comparison_json(&c[i]));
    for (int row = 0; row < COMPARE_RUNS; row++) {
        json_t *one = json_pack("{s:s}", "run", c[0].row[row].title);
        for (int m = 0; m < 4; m++)
            one = lh_json_set(one, names[m], spread_json(row_spread(c, n, row, m)));
        rows = lh_json_append(rows, one);
    }
    return json_pack("{s:o s:o s:o s:o}", "seeds", seeds, "runs", rows, "step_speedup",
                     spread_json(speed_spread(c, n, true)), "end_to_end_speedup",
                     spread_json(speed_spread(c, n, false)));
}

void comparisons_print(const comparison *c, int n, FILE *to)
{
    for (int i = 0; i < n; i++) {
        fprintf(to, "Seed %" PRId64 "\n", c[i].seed);
        comparison_print(&c[i], to);
        fprintf(to, "\n");
    }
    fprintf(
        to,
        "Mean of %d seeds and, after the sign, the standard deviation of one\n%-20s %18s %18s %18s %18s\n", n,
        "run", "train s", "train loss", "held-out", "over two-stage");
    for (int row = 0; row < COMPARE_RUNS; row++) {
        fprintf(to, "%-20s", c[0].row[row].title);
        for (int m = 0; m < 4; m++) {
            const struct spread s = row_spread(c, n, row, m);
            fprintf(to, m == 0 ? " %9.1f +- %5.1f" : " %8.4f +- %6.4f", s.mean, s.deviation);
        }
        fprintf(to, "\n");
    }
    const struct spread step = speed_spread(c, n, true), whole = speed_spread(c, n, false);
    fprintf(
        to,
        "A Lighthouse step is %.2f +- %.2f times as fast as a dense one; the two-stage run %.2f +- %.2f times as "
        "fast as dense training on the same tokens.\n",
        step.mean, step.deviation, whole.mean, whole.deviation);
}
