/*
 * seconds.h: how long something took, by the machine's clock.
 *
 * A monotonic clock may still go back (a virtual machine that moves to another host). The journal's seconds are 0 or more, so that
 * a run can be gone on with whatever the clock did.
 */
#ifndef TRAIN_SECONDS_H
#define TRAIN_SECONDS_H

#include "core/base.h"

/* From one lh_seconds to a later one; 0 where the clock went back. */
static inline double seconds_between(double from, double to)
{
    return to > from ? to - from : 0;
}

static inline double seconds_since(double start)
{
    return seconds_between(start, lh_seconds());
}

#endif
