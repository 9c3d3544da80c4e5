/*
 * Plan: sizes that follow from a configuration and an instruction set, and the workspace laid out from them.
 *
 * No pyramid and no selected rows of more than a few heads are ever in memory.
 */
#include "core/arena.h"
#include "openmp/pack.h"

static int64_t round_up(int64_t n, int64_t step)
{
    return (n + step - 1) / step * step;
}

static int64_t clamp(int64_t n, int64_t least, int64_t most)
{
    return n < least ? least : n > most ? most : n;
}

enum {
    ROWS_AT_A_TIME = 32768, /* heads are worked on together until they have so many rows */
    PIECES_AT_A_TIME = 64,  /* pieces of backward work that heads worked on together are cut into */
    PIECES_A_THREAD =
        16, /* or until each thread has so many pieces: fewer heads stay in the cache that threads share */
};

/* As many heads as give each thread its pieces, at most `most`. */
static int64_t heads_for(int threads, int64_t pieces_a_head, int64_t most)
{
    return clamp(((int64_t)PIECES_A_THREAD * threads + pieces_a_head - 1) / pieces_a_head, 1, most);
}

/* The backward's partial sums of dq_sel: of the whole layer, whatever part of it the plan is and whoever works on it. */
static void share_out(const lh_config *config, int64_t rows, int threads, struct lh_omp_sizes *z)
{
    const int64_t all = config->batch * config->heads, group = config->heads / config->kv_heads;
    const int64_t most = clamp(round_up(clamp(ROWS_AT_A_TIME / rows, 1, all), group), 1, all);
    z->groups = clamp(PIECES_AT_A_TIME / most, 1, round_up(rows, LH_OMP_TILE) / LH_OMP_TILE);
    z->heads_backward = round_up(heads_for(threads, z->groups, most), group);
}

static struct lh_omp_sizes sizes_of(const lh_plan *plan)
{
    const lh_config *config = &plan->config;
    const struct lh_part *part = plan->options.part;
    const int64_t rows = plan->layout.selected, all = config->batch * config->heads;
    const int64_t tiles = (rows + LH_OMP_TILE - 1) / LH_OMP_TILE;
    const int threads = lh_omp_state(plan)->threads;
    struct lh_omp_sizes z = {
        .rows = rows,
        .tiles = tiles,
        .key_rows = round_up(rows, LH_OMP_TILE),
        .dim = config->dim,
        .dim_group = round_up(config->dim, GROUP),
        .dim_vector = round_up(config->dim, LANES),
        .heads_forward = heads_for(threads, tiles, clamp(ROWS_AT_A_TIME / rows, 1, all)),
    };
    share_out(part ? part->layer : config, part ? part->layout->selected : rows, threads, &z);
    if (part)
        z.heads_backward = round_up(z.heads_forward, config->heads / config->kv_heads);
    z.sums = z.groups;
    z.first_tile = part ? part->first_query / LH_OMP_TILE : 0;
    z.stripe_tiles = clamp(z.tiles, 1, LH_OMP_STRIPE_TILES);
    if (part && part->window) {
        z.heads_window = all;
        z.stripe_tiles = part->window / LH_OMP_TILE;
        z.sums = threads == 1 ? 1 : clamp(2 * threads, 1, z.groups); /* two a thread: not all are as long */
    }
    return z;
}

/* Bytes per thread, whichever part of the work it is used by. */
static size_t scratch_bytes(const lh_plan *plan, const struct lh_omp_sizes *z)
{
    const size_t d = (size_t)z->dim, block = BLOCK;
    const size_t needs[] = {
        sizeof(float) * PACK_MOST * d,
        sizeof(float) * 2 * block * d,
        lh_omp_forward_bytes(z),
        sizeof(float) * 2 * LH_OMP_TILE * LH_OMP_TILE,
        lh_omp_select_bytes(plan),
        lh_omp_pool_bytes(plan),
        z->heads_window ? lh_omp_window_bytes(z) : 0,
    };
    size_t most = 0;
    for (size_t i = 0; i < sizeof needs / sizeof *needs; i++)
        most = needs[i] > most ? needs[i] : most;
    return (most + 127) / 64 * 64; /* a line apart: threads do not share one */
}

static void keep(const lh_plan *plan, lh_tensor_id id, bool wanted, lh_arena *arena, lh_tensor *tensor)
{
    lh_tensor_shape(&plan->config, &plan->layout, plan->options.dtype, id, tensor);
    tensor->data = NULL;
    if (wanted)
        tensor->data = lh_arena_take(arena, (size_t)lh_tensor_elements(tensor), lh_dtype_size(tensor->dtype));
}

size_t lh_omp_arrange(const lh_plan *plan, void *base)
{
    struct lh_omp_state *state = lh_omp_state(plan);
    const lh_config *config = &plan->config;
    const size_t entries = (size_t)plan->layout.entries * (size_t)config->batch;
    const bool lighthouse = config->levels > 1, backward = plan->options.backward;
    const struct lh_omp_sizes z = state->sizes = sizes_of(plan);
    lh_arena arena = {base, 0};
    const struct lh_part *part = plan->options.part;
    const unsigned stages = part ? part->stages : ~0u;
    const bool kept = !plan->options.workspace_given && !part;
    keep(plan, LH_INDEX, kept && lighthouse, &arena, &state->index);
    keep(plan, LH_O_SEL, kept && (lighthouse || backward), &arena, &state->o_sel);
    keep(plan, LH_LSE, kept && backward, &arena, &state->lse);
    if (lighthouse && !part && !plan->options.index_given && !plan->options.scores_given) {
        state->score_q = lh_arena_take(&arena, entries * (size_t)config->heads, sizeof(float));
        state->score_k = lh_arena_take(&arena, entries * (size_t)config->kv_heads, sizeof(float));
    }
    if ((lighthouse || plan->options.stages) && (stages & (1u << LH_SCATTER | 1u << LH_UNPOOL)))
        state->slot = lh_arena_take(&arena, entries * (size_t)config->heads, sizeof(int32_t));
    size_t floats = lh_omp_forward_floats(&z);
    if (backward && lh_omp_backward_floats(&z) > floats)
        floats = lh_omp_backward_floats(&z);
    if (!(stages & (1u << LH_ATTEND | 1u << LH_ATTEND_BACKWARD)))
        floats = 0;
    else if (z.heads_window)
        floats = backward ? lh_omp_window_floats(&z) : 0;
    state->pack = lh_arena_take(&arena, floats, sizeof(float));
    state->scratch_bytes = scratch_bytes(plan, &z);
    state->scratch = lh_arena_take(&arena, (size_t)state->threads, state->scratch_bytes);
    return arena.used;
}
