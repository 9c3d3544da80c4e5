/* The two-stage recipe as a state machine, and the loss monitor. */
#include "train/recipe.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "core/base.h"

static const char *const names[PHASE_COUNT] = {"lighthouse", "dense", "finished"};
static const double flat = 0.02; /* nats: less was gained over the last half of the dense stage */

const char *phase_name(phase s)
{
    return names[s];
}

lh_status phase_parse(const char *text, phase *s, lh_error *error)
{
    for (int i = 0; i < PHASE_COUNT; i++) {
        if (text && strcmp(text, names[i]) == 0) {
            *s = i;
            return LH_OK;
        }
    }
    return lh_fail(error, LH_FORMAT, "stage is %s, wanted lighthouse, dense or finished",
                   text ? text : "missing");
}

static phase phase_at(const settings *s, int64_t step)
{
    return step < s->lighthouse_steps                    ? PHASE_LIGHTHOUSE
           : step < s->lighthouse_steps + s->dense_steps ? PHASE_DENSE
                                                         : PHASE_FINISHED;
}

void recipe_start(const settings *s, recipe *r)
{
    memset(r, 0, sizeof *r);
    r->phase = phase_at(s, 0);
    r->monitor.lowest = INFINITY;
}

lh_status recipe_check(const recipe *r, lh_error *error)
{
    const monitor *m = &r->monitor;
    if (r->step > INT64_C(1000000000000000))
        return lh_fail(error, LH_FORMAT, "step is %" PRId64 ", wanted at most 1e15", r->step);
    if (!(m->seen >= 0 && m->seen <= fmin(WINDOW, (double)r->step)) || m->seen != floor(m->seen))
        return lh_fail(error, LH_FORMAT, "monitor has seen %g losses at step %" PRId64 ", wanted 0 to %d",
                       m->seen, r->step, WINDOW);
    const double *value = (const double *)m;
    for (int i = 0; i < MONITOR_DOUBLES; i++) {
        if (isnan(value[i]) || (isinf(value[i]) && &value[i] != &m->lowest))
            return lh_fail(error, LH_FORMAT, "monitor has %g, wanted a finite number", value[i]);
    }
    return LH_OK;
}

static void enter_dense(monitor *m)
{
    m->before_switch = m->smooth;
    m->seen = 0;
    m->lowest = INFINITY;
}

/* What is done cannot be changed: so many steps with Lighthouse on, and after the switch no other number of them. */
static lh_status check_done(const settings *s, const settings *before, const recipe *r, lh_error *error)
{
    const bool switched = r->phase != PHASE_LIGHTHOUSE;
    const int64_t dense_done = switched ? r->step - before->lighthouse_steps : 0;
    if (switched && s->lighthouse_steps != before->lighthouse_steps)
        return lh_fail(error, LH_INVALID,
                       "lighthouse-steps is %" PRId64 ", wanted the %" PRId64
                       " done: the switch to dense is behind this run",
                       s->lighthouse_steps, before->lighthouse_steps);
    if (!switched && s->lighthouse_steps < r->step)
        return lh_fail(error, LH_INVALID,
                       "lighthouse-steps is %" PRId64 ", wanted at least the %" PRId64 " done",
                       s->lighthouse_steps, r->step);
    if (s->dense_steps < dense_done)
        return lh_fail(error, LH_INVALID, "dense-steps is %" PRId64 ", wanted at least the %" PRId64 " done",
                       s->dense_steps, dense_done);
    return LH_OK;
}

lh_status recipe_resume(const settings *s, const settings *before, recipe *r, lh_error *error)
{
    const phase now = phase_at(s, r->step);
    const lh_status status = check_done(s, before, r, error);
    if (status != LH_OK)
        return status;
    if (now != PHASE_LIGHTHOUSE && r->phase == PHASE_LIGHTHOUSE)
        enter_dense(&r->monitor);
    r->phase = now;
    return LH_OK;
}

static double ramp(int64_t step, int64_t over)
{
    return step < over ? (double)(step + 1) / (double)over : 1;
}

/* 1 at the beginning of a schedule over `steps`, final_rate at its end. */
static double fallen(const settings *s, int64_t step, int64_t steps, int64_t warmup)
{
    const double pi = 3.14159265358979323846, end = s->final_rate;
    const int64_t from = warmup < steps ? warmup : steps;
    const double at = step > from ? (double)(step - from) / (double)(steps - from) : 0;
    if (strcmp(s->schedule, "cosine") == 0)
        return end + (1 - end) * (1 + cos(pi * at)) / 2;
    if (strcmp(s->schedule, "linear") == 0)
        return 1 - (1 - end) * at;
    const double begun = (double)step / (double)steps - (1 - s->cooldown);
    return strcmp(s->schedule, "wsd") == 0 && begun > 0 ? 1 - (1 - end) * begun / s->cooldown : 1;
}

bool schedule_is_constant(const settings *s)
{
    return strcmp(s->schedule, "constant") == 0;
}

double recipe_rate(const settings *s, const recipe *r)
{
    const int64_t all = s->lighthouse_steps + s->dense_steps;
    const bool dense = r->phase == PHASE_DENSE && s->lighthouse_steps > 0;
    const int64_t dense_step = r->step - s->lighthouse_steps;
    double rate = s->rate * ramp(r->step, s->warmup);
    if (dense)
        rate *= ramp(dense_step, s->rewarm);
    if (!s->anew)
        return rate * fallen(s, r->step, all, s->warmup);
    return rate * (dense
                       ? fallen(s, dense_step, s->dense_steps, s->rewarm)
                       : fallen(s, r->step, all - (s->lighthouse_steps > 0 ? s->dense_steps : 0), s->warmup));
}

static void book(monitor *m, int64_t step, double loss)
{
    m->recent[step % WINDOW] = loss;
    m->seen = fmin(m->seen + 1, WINDOW);
    double sum = 0;
    for (int i = 0; i < (int)m->seen; i++)
        sum += m->recent[(step - i) % WINDOW];
    m->smooth = sum / m->seen;
    if (m->seen == WINDOW)
        m->lowest = fmin(m->lowest, m->smooth);
}

static void book_dense(const settings *s, monitor *m, int64_t dense_step, double loss)
{
    if (s->lighthouse_steps > 0 && dense_step <= WINDOW)
        m->jump = fmax(m->jump, loss);
    if (m->before_switch > 0 && m->recovered_after == 0 && m->seen == WINDOW && m->smooth <= m->before_switch)
        m->recovered_after = (double)dense_step;
    if (dense_step == (s->dense_steps + 1) / 2)
        m->halfway = m->smooth;
}

lh_status recipe_step(const settings *s, recipe *r, double loss, lh_error *error)
{
    monitor *m = &r->monitor;
    if (!isfinite(loss))
        return lh_fail(error, LH_MISMATCH, "loss is %g at step %" PRId64 ", wanted a finite number", loss,
                       r->step + 1);
    book(m, r->step, loss);
    if (m->seen == WINDOW && m->smooth > m->lowest + s->divergence)
        return lh_fail(error, LH_MISMATCH,
                       "loss is %.3f over the last %d steps at step %" PRId64 ", wanted at most %.3f + %g",
                       m->smooth, WINDOW, r->step + 1, m->lowest, s->divergence);
    r->step++;
    if (r->phase == PHASE_DENSE)
        book_dense(s, m, r->step - s->lighthouse_steps, loss);
    const phase next = phase_at(s, r->step);
    if (next == PHASE_DENSE && r->phase == PHASE_LIGHTHOUSE)
        enter_dense(m);
    r->phase = next;
    return LH_OK;
}

lh_status recipe_wants_dense(const recipe *r, const char *wish, lh_error *error)
{
    if (r->phase != PHASE_LIGHTHOUSE)
        return LH_OK;
    return lh_fail(error, LH_INVALID,
                   "stage is lighthouse, wanted dense or finished before %s: resume the run", wish);
}

lh_status recipe_wants_finished(const recipe *r, const char *wish, lh_error *error)
{
    if (r->phase == PHASE_FINISHED)
        return LH_OK;
    return lh_fail(error, LH_INVALID, "stage is %s, wanted finished before %s: resume the run",
                   phase_name(r->phase), wish);
}

void recipe_verdict(const settings *s, const recipe *r, char *text, size_t size)
{
    const monitor *m = &r->monitor;
    if (s->lighthouse_steps == 0) {
        snprintf(text, size, "Dense throughout: no switch to recover from.");
    } else if (r->phase != PHASE_FINISHED) {
        snprintf(text, size, "Not finished: %" PRId64 " of %" PRId64 " steps.", r->step,
                 s->lighthouse_steps + s->dense_steps);
    } else if (s->dense_steps < 2 * WINDOW) {
        snprintf(text, size, "The dense stage has %" PRId64 " steps: too few to judge the recovery by.",
                 s->dense_steps);
    } else {
        const double gained = m->halfway - m->smooth;
        char recovery[160];
        if (m->recovered_after > 0)
            snprintf(recovery, sizeof recovery, "was back at it after %.0f dense steps", m->recovered_after);
        else
            snprintf(recovery, sizeof recovery, "ended at %.3f, not recovered", m->smooth);
        snprintf(
            text, size,
            "At the switch the loss went from %.3f to %.3f and %s. The last half of the dense stage gained "
            "%.3f nats: %s",
            m->before_switch, m->jump, recovery, gained,
            gained > flat ? "the curve has not flattened, more dense steps would pay."
                          : "the curve has flattened.");
    }
}
