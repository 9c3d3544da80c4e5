/* Faults of the scatter and of its backward: SPEC 3.7 and the first line of SPEC 4. */
#include <string.h>

#include "core/backend.h"
#include "check/faults.h"

enum scatter_fault {
    NO_SHIFT,
    SHIFT_WINDOW,
    SHIFT_ONE,
    SPILL,
    CLAMP,
    DROP_CLIPPED,
    OVERWRITE_IN_ORDER,
    OVERWRITE_FINE_LAST,
    MEAN_FAN_IN,
    DIVIDE_WINDOW,
    SKIP_MIDDLE,
    SKIP_COARSEST,
    FILL_PREFIX,
};

/* One layer's scatter in flat rows: row b*H*N + h*N + j. */
struct target {
    double *out;
    int32_t *coverage; /* may be NULL */
    int64_t dim;
};

static void write_row(const struct target *t, int64_t row, const double *value, double weight, bool overwrite)
{
    double *out = t->out + row * t->dim;
    for (int64_t c = 0; c < t->dim; c++)
        out[c] = overwrite ? value[c] : out[c] + weight * value[c];
    if (t->coverage)
        t->coverage[row]++;
}

static int64_t start_of(struct lh_span span, enum scatter_fault how)
{
    if (how == NO_SHIFT)
        return span.first;
    if (how == SHIFT_ONE)
        return span.first + (span.window > 1);
    return span.first + span.window - (how == SHIFT_WINDOW ? 0 : 1);
}

static void scatter_entry(const struct target *t, const lh_config *config, int64_t head, struct lh_span span,
                          const double *value, enum scatter_fault how)
{
    const int64_t n = config->tokens, start = start_of(span, how);
    const double weight = how == DIVIDE_WINDOW ? 1.0 / (double)span.window : 1.0;
    const bool overwrite = how == OVERWRITE_IN_ORDER || how == OVERWRITE_FINE_LAST;
    if (how == DROP_CLIPPED && start + span.window > n)
        return;
    for (int64_t j = start; j < start + span.window; j++) {
        if (j < n)
            write_row(t, head * n + j, value, weight, overwrite);
        else if (how == SPILL && head * n + j < config->batch * config->heads * n)
            write_row(t, head * n + j, value, weight, false);
        else if (how == CLAMP)
            write_row(t, head * n + n - 1, value, weight, false);
    }
}

static bool skipped(const lh_config *config, int level, enum scatter_fault how)
{
    if (how == SKIP_MIDDLE)
        return level == 1;
    return how == SKIP_COARSEST && level == (int)config->levels - 1;
}

static void average(const struct target *t, int64_t rows)
{
    for (int64_t row = 0; row < rows; row++) {
        for (int64_t c = 0; c < t->dim && t->coverage[row] > 1; c++)
            t->out[row * t->dim + c] /= t->coverage[row];
    }
}

/* Positions nothing covers get the first covered position's row. */
static void fill_prefix(const struct target *t, int64_t tokens)
{
    int64_t covered = 0;
    while (covered < tokens && t->coverage[covered] == 0)
        covered++;
    for (int64_t j = 0; j < covered && covered < tokens; j++)
        memcpy(t->out + j * t->dim, t->out + covered * t->dim, sizeof(double) * (size_t)t->dim);
}

static lh_status scatter_wrongly(const lh_fault *fault, const lh_config *config, const lh_layout *layout,
                                 const lh_tensor *trace, lh_error *error)
{
    const enum scatter_fault how = (enum scatter_fault)fault->variant;
    if (how == SKIP_MIDDLE && config->levels < 3)
        return lh_fail(error, LH_UNSUPPORTED, "no middle level");
    const int64_t heads = config->batch * config->heads, rows = heads * config->tokens;
    const struct target t = {(double *)trace[LH_OUT].data, (int32_t *)trace[LH_COVERAGE].data, config->dim};
    memset(t.out, 0, sizeof(double) * (size_t)(rows * config->dim));
    memset(t.coverage, 0, sizeof(int32_t) * (size_t)rows);
    /* Fine-last overwriting goes over the levels from coarse to fine; everything else in one sweep. */
    const int sweeps = how == OVERWRITE_FINE_LAST ? (int)config->levels : 1;
    for (int sweep = 0; sweep < sweeps; sweep++) {
        for (int64_t i = 0; i < heads * layout->selected; i++) {
            const struct lh_span span = lh_span_of(config, layout, lh_index_at(&trace[LH_INDEX], i));
            if (skipped(config, span.level, how) || (sweeps > 1 && span.level != sweeps - 1 - sweep))
                continue;
            scatter_entry(&t, config, i / layout->selected, span,
                          (const double *)trace[LH_O_SEL].data + i * config->dim, how);
        }
    }
    if (how == MEAN_FAN_IN)
        average(&t, rows);
    for (int64_t head = 0; head < heads && how == FILL_PREFIX; head++)
        fill_prefix(&(struct target){t.out + head * config->tokens * t.dim,
                                     t.coverage + head * config->tokens, t.dim},
                    config->tokens);
    return LH_OK;
}

enum scatter_backward_fault {
    FIRST_POSITION,
    MEAN_POSITION,
    UNSHIFTED,
};

static lh_status scatter_backward_wrongly(const lh_fault *fault, const lh_config *config,
                                          const lh_layout *layout, const lh_tensor *trace, lh_error *error)
{
    const int64_t d = config->dim;
    (void)error;
    for (int64_t i = 0; i < config->batch * config->heads * layout->selected; i++) {
        const struct lh_span span = lh_span_of(config, layout, lh_index_at(&trace[LH_INDEX], i));
        const int64_t head = i / layout->selected;
        const double *dout = (const double *)trace[LH_DOUT].data + head * config->tokens * d;
        double *do_sel = (double *)trace[LH_DO_SEL].data + i * d;
        const int64_t start = fault->variant == UNSHIFTED ? span.first : span.first + span.window - 1;
        int64_t end = start + (fault->variant == FIRST_POSITION ? 1 : span.window);
        if (end > config->tokens)
            end = config->tokens;
        for (int64_t c = 0; c < d; c++) {
            double sum = 0.0;
            for (int64_t j = start; j < end; j++)
                sum += dout[j * d + c];
            do_sel[c] = fault->variant == MEAN_POSITION ? sum / (double)(end - start) : sum;
        }
    }
    return LH_OK;
}

const lh_fault lh_faults_scatter[] = {
    {1, LH_SCATTER, "scatter-no-shift", "SPEC 3.7",
     "Start writing at i*p^l + p^l - 1, the window's last token: without the shift a token sees its future.",
     NO_SHIFT, scatter_wrongly},
    {1, LH_SCATTER, "scatter-shift-1", "SPEC 3.7", "Shift by p^l - 1, not by 1.", SHIFT_ONE, scatter_wrongly},
    {1, LH_SCATTER, "scatter-shift-p^l", "SPEC 3.7", "Shift by p^l - 1, not by p^l.", SHIFT_WINDOW,
     scatter_wrongly},
    {2, LH_SCATTER, "scatter-spills", "SPEC 3.7",
     "Clip the written range at N: rows past it belong to the next head.", SPILL, scatter_wrongly},
    {2, LH_SCATTER, "scatter-clamps", "SPEC 3.7", "Drop positions past N, do not add them to the last token.",
     CLAMP, scatter_wrongly},
    {2, LH_SCATTER, "scatter-drops-clipped", "SPEC 3.7",
     "An entry whose range passes N still writes the positions below N.", DROP_CLIPPED, scatter_wrongly},
    {3, LH_SCATTER, "scatter-overwrites", "SPEC 3.7", "Add what several entries write to one position.",
     OVERWRITE_IN_ORDER, scatter_wrongly},
    {3, LH_SCATTER, "scatter-overwrites-fine-last", "SPEC 3.7",
     "Add what several levels write to one position; the finest does not replace the others.",
     OVERWRITE_FINE_LAST, scatter_wrongly},
    {4, LH_SCATTER, "scatter-averages", "SPEC 3.7", "Sum the contributions; do not divide by their number.",
     MEAN_FAN_IN, scatter_wrongly},
    {4, LH_SCATTER, "scatter-divides-by-p^l", "SPEC 3.7",
     "Every position receives the whole row, not 1/p^l of it.", DIVIDE_WINDOW, scatter_wrongly},
    {19, LH_SCATTER, "scatter-skips-level-1", "SPEC 3.7", "Every level's entries are scattered, level 1 too.",
     SKIP_MIDDLE, scatter_wrongly},
    {19, LH_SCATTER, "scatter-skips-coarsest", "SPEC 3.7",
     "Every level's entries are scattered, the coarsest too.", SKIP_COARSEST, scatter_wrongly},
    {20, LH_SCATTER, "scatter-fills-prefix", "SPEC 3.7",
     "A position that nothing covers stays exactly zero; do not fill it.", FILL_PREFIX, scatter_wrongly},
    {25, LH_SCATTER_BACKWARD, "scatter-backward-first", "SPEC 4",
     "do_sel sums dout over all positions the entry wrote, not the first one.", FIRST_POSITION,
     scatter_backward_wrongly},
    {25, LH_SCATTER_BACKWARD, "scatter-backward-mean", "SPEC 4",
     "do_sel sums dout over the positions the entry wrote; it does not average.", MEAN_POSITION,
     scatter_backward_wrongly},
    {25, LH_SCATTER_BACKWARD, "scatter-backward-unshifted", "SPEC 4",
     "do_sel sums over the shifted range i*p^l + p^l - 1 ... that the forward wrote.", UNSHIFTED,
     scatter_backward_wrongly},
    {0, LH_STAGE_COUNT, NULL, NULL, NULL, 0, NULL},
};
