/* How far an error reaches: what one worst element does not show. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "check/check.h"

struct extent {
    int64_t elements, wrong;
    int64_t heads, wrong_heads, first_head; /* (b,h) pairs */
    int64_t first_row, last_row;            /* over all heads */
    double ratio;                           /* got / wanted where it is the same throughout; else 0 */
};

static struct extent measure(const lh_tensor *got, const lh_tensor *want, double allowed)
{
    const int64_t width = want->rank == 4 ? want->shape[3] : 1, rows = want->shape[2];
    struct extent x = {.elements = lh_tensor_elements(want),
                       .heads = want->shape[0] * want->shape[1],
                       .first_head = -1,
                       .first_row = rows,
                       .last_row = -1};
    double low = INFINITY, high = -INFINITY;
    int64_t last_head = -1;
    for (int64_t i = 0; i < x.elements; i++) {
        const double found = verify_element(got, i), wanted = verify_element(want, i);
        if (fabs(found - wanted) <= allowed)
            continue;
        const int64_t head = i / width / rows, row = i / width % rows;
        x.wrong++;
        x.first_head = x.first_head < 0 ? head : x.first_head;
        x.wrong_heads += head != last_head;
        last_head = head;
        x.first_row = row < x.first_row ? row : x.first_row;
        x.last_row = row > x.last_row ? row : x.last_row;
        low = fmin(low, found / wanted);
        high = fmax(high, found / wanted);
    }
    if (x.wrong > 3 && isfinite(low) && isfinite(high) &&
        fabs(high - low) <= 0.05 * fabs((low + high) / 2 - 1))
        x.ratio = (low + high) / 2;
    return x;
}

/* Another tensor of the dump that holds the very same values, or NULL. */
static const char *same_as(const lh_tensor *found, lh_tensor_id id)
{
    for (int other = 0; other < LH_TENSOR_COUNT; other++) {
        const lh_tensor *t = &found[other];
        if (other == (int)id || !t->data || t->dtype != found[id].dtype || t->rank != found[id].rank ||
            memcmp(t->shape, found[id].shape, sizeof *t->shape * (size_t)t->rank) != 0)
            continue;
        if (verify_first_difference(t, &found[id]) < 0)
            return lh_tensor_name((lh_tensor_id)other);
    }
    return NULL;
}

/* Head whose wanted values head `mine` has, when it is another one; -1. */
static int64_t another_head(const lh_tensor *got, const lh_tensor *want, int64_t mine, double allowed)
{
    const int64_t heads = want->shape[0] * want->shape[1], size = lh_tensor_elements(want) / heads;
    for (int64_t other = 0; other < heads; other++) {
        int64_t i = 0;
        while (other != mine && i < size &&
               fabs(verify_element(got, mine * size + i) - verify_element(want, other * size + i)) <= allowed)
            i++;
        if (i == size)
            return other;
    }
    return -1;
}

/* True when row r of the head has what row r - shift should, wherever both are, and that is more than nothing. */
static bool shifted(const lh_tensor *got, const lh_tensor *want, int64_t head, int64_t shift, double allowed)
{
    const int64_t width = want->rank == 4 ? want->shape[3] : 1, rows = want->shape[2],
                  first = head * rows * width, low = shift > 0 ? shift : 0,
                  high = shift > 0 ? rows : rows + shift;
    bool any = false;
    for (int64_t k = low * width; k < high * width; k++) {
        const double wanted = verify_element(want, first + k - shift * width);
        if (!(fabs(verify_element(got, first + k) - wanted) <= allowed))
            return false;
        any = any || fabs(wanted) > allowed;
    }
    return any;
}

/* By how many rows the head is shifted, at most half of them; 0. */
static int64_t shift_of(const lh_tensor *got, const lh_tensor *want, int64_t head, double allowed)
{
    for (int64_t shift = 1; shift <= want->shape[2] / 2; shift++) {
        if (shifted(got, want, head, shift, allowed))
            return shift;
        if (shifted(got, want, head, -shift, allowed))
            return -shift;
    }
    return 0;
}

void check_extent(const struct check_evidence *evidence, verify_row *row)
{
    const lh_tensor_id id = row->tensor;
    const verify_expect *e = strcmp(row->part, "layer") == 0 ? evidence->layer : evidence->stages;
    const lh_tensor *got = &evidence->found[id], *want = &e->want.tensor[id];
    const size_t used = strlen(row->note);
    char *text = row->note + used;
    const size_t room = sizeof row->note - used;
    if (id == LH_INDEX || row->result.worst < 0 || !want->data)
        return;
    const double allowed = verify_integer(got->dtype) ? 0 : row->result.allowed;
    const struct extent x = measure(got, want, allowed);
    if (x.wrong == 0)
        return;
    int n =
        snprintf(text, room, "%s%" PRId64 " of %" PRId64 " elements", used ? "; " : "", x.wrong, x.elements);
    if (x.heads > 1 && x.wrong_heads == 1)
        n += snprintf(text + n, room - (size_t)n, ", head [%" PRId64 ",%" PRId64 "] alone",
                      x.first_head / want->shape[1], x.first_head % want->shape[1]);
    else if (x.heads > 1)
        n += snprintf(text + n, room - (size_t)n, ", %" PRId64 " of %" PRId64 " heads", x.wrong_heads,
                      x.heads);
    n += snprintf(text + n, room - (size_t)n, ", rows %" PRId64 " to %" PRId64, x.first_row, x.last_row);
    if (x.ratio != 0)
        n += snprintf(text + n, room - (size_t)n, ", %.4g times what is wanted throughout", x.ratio);
    const char *same = same_as(evidence->found, id);
    const int64_t other = x.first_head >= 0 ? another_head(got, want, x.first_head, allowed) : -1;
    const int64_t shift =
        x.first_head >= 0 && !same && other < 0 ? shift_of(got, want, x.first_head, allowed) : 0;
    if (shift != 0)
        snprintf(text + n, room - (size_t)n,
                 ", rows of head [%" PRId64 ",%" PRId64 "] are those wanted %" PRId64 " %s",
                 x.first_head / want->shape[1], x.first_head % want->shape[1], shift > 0 ? shift : -shift,
                 shift > 0 ? "before" : "behind");
    else if (same)
        snprintf(text + n, room - (size_t)n, ", the values of %s", same);
    else if (other >= 0)
        snprintf(text + n, room - (size_t)n,
                 ", head [%" PRId64 ",%" PRId64 "] has what [%" PRId64 ",%" PRId64 "] should",
                 x.first_head / want->shape[1], x.first_head % want->shape[1], other / want->shape[1],
                 other % want->shape[1]);
}
