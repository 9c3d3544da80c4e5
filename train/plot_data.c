/* Reading curves from a journal, thinned and smoothed. */
#include "train/plot_data.h"

#include <string.h>

#include "train/journal.h"

struct reading {
    plot_curve *curve;
    int64_t steps, held_outs; /* in all, counted first */
    int64_t step, held_out;
    plot_point now;
    double mean_loss, mean_seconds, seen;
    bool lighthouse;
};

static lh_status count(void *user, const journal_entry *e, lh_error *error)
{
    struct reading *r = user;
    (void)error;
    r->steps += e->kind == ENTRY_STEP;
    r->held_outs += e->kind == ENTRY_HELD_OUT;
    return LH_OK;
}

/* The last of every so many, so that the end is in. */
static bool is_kept(int64_t number, int64_t all)
{
    const int64_t stride = (all + PLOT_POINTS - 1) / PLOT_POINTS;
    return all <= 0 || (all - number) % stride == 0; /* the log may have grown since it was counted */
}

static void take_step(struct reading *r, const journal_entry *e)
{
    plot_curve *c = r->curve;
    const bool lighthouse = e->phase == PHASE_LIGHTHOUSE;
    if (r->lighthouse && !lighthouse) {
        c->switched = true;
        c->at_switch = r->now;
        r->seen = 0; /* the jump is to be seen */
    }
    r->lighthouse = lighthouse;
    r->seen = r->seen < WINDOW ? r->seen + 1 : WINDOW;
    r->mean_loss += (e->loss - r->mean_loss) / r->seen;
    r->mean_seconds += (e->seconds - r->mean_seconds) / r->seen;
    r->now.tokens += (double)e->tokens / 1e6;
    r->now.minutes += e->seconds / 60;
    r->now.loss = r->mean_loss;
    r->now.speed = r->mean_seconds > 0 ? (double)e->tokens / r->mean_seconds : 0;
    if (is_kept(++r->step, r->steps) && c->points < PLOT_POINTS)
        c->point[c->points++] = r->now;
}

static lh_status take(void *user, const journal_entry *e, lh_error *error)
{
    struct reading *r = user;
    plot_curve *c = r->curve;
    (void)error;
    if (e->kind == ENTRY_STEP)
        take_step(r, e);
    else if (e->kind == ENTRY_HELD_OUT && is_kept(++r->held_out, r->held_outs) &&
             c->held_outs < PLOT_POINTS) {
        c->held_out[c->held_outs] = r->now;
        c->held_out[c->held_outs++].loss = e->loss;
    }
    return LH_OK;
}

lh_status plot_read(const char *folder, plot_curve *curve, lh_error *error)
{
    struct reading r = {.curve = curve};
    memset(curve, 0, sizeof *curve);
    const lh_status status = journal_read(folder, count, &r, error);
    return status == LH_OK ? journal_read(folder, take, &r, error) : status;
}
