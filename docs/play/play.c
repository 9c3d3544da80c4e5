/* The reference behind the page: see play.h. */
#include <string.h>

#include "core/base.h"
#include "core/random.h"
#include "docs/play/play.h"
#include "explain/broken.h"
#include "ref/ref.h"

enum {
    HEADS = 2,
    N = PLAY_TOKENS * HEADS,
    P = 2 * N, /* p >= 2: the levels add up to less than twice the tokens */
    S = P,
    D = PLAY_DIM,
};

/* Two layers: the one that is shown and the probed copy. */
static struct layer {
    double tokens[9][N * D];  /* q k v out dout dq dk dv head */
    double entries[3][P * D]; /* q_pyr k_pyr v_pyr */
    double slots[8][S * D];   /* q_sel k_sel v_sel o_sel do_sel dq_sel dk_sel dv_sel */
    double scores[2][P], lse[S], row[S];
    int64_t index[S], slot[P];
    int32_t coverage[N];
    struct ref_candidate candidates[S];
} layers[2];

static struct ref_shape shape;
static lh_error error;
static double weights[(P / HEADS) * (P / HEADS)];
static int32_t index32[S], moved[N];

static struct ref_trace bind(struct layer *l)
{
    return (struct ref_trace){
        .q = l->tokens[0],
        .k = l->tokens[1],
        .v = l->tokens[2],
        .q_pyr = l->entries[0],
        .k_pyr = l->entries[1],
        .v_pyr = l->entries[2],
        .score_q = l->scores[0],
        .score_k = l->scores[1],
        .index = l->index,
        .q_sel = l->slots[0],
        .k_sel = l->slots[1],
        .v_sel = l->slots[2],
        .o_sel = l->slots[3],
        .lse = l->lse,
        .out = l->tokens[3],
        .coverage = l->coverage,
        .dout = l->tokens[4],
        .do_sel = l->slots[4],
        .dq_sel = l->slots[5],
        .dk_sel = l->slots[6],
        .dv_sel = l->slots[7],
        .dq = l->tokens[5],
        .dk = l->tokens[6],
        .dv = l->tokens[7],
        .scratch = {l->candidates, l->slot, l->row, l->tokens[8]},
    };
}

static int configure(const lh_config *config)
{
    shape = (struct ref_shape){config->batch,  config->heads, config->kv_heads, config->tokens,   config->dim,
                               config->levels, config->pool,  config->topk,     config->tile_topk};
    error.text[0] = '\0';
    if (config->tokens > PLAY_TOKENS || config->dim > PLAY_DIM)
        return (int)lh_fail(&error, LH_INVALID, "tokens is %d, dim is %d, wanted at most %d and %d",
                            (int)config->tokens, (int)config->dim, PLAY_TOKENS, PLAY_DIM);
    return lh_config_check(config, NULL, &error) != LH_OK;
}

int play_configure(int tokens, int dim, int levels, int pool, int topk, int tile_topk)
{
    const lh_config config = {1, 1, 1, tokens, dim, levels, pool, topk, tile_topk};
    return configure(&config);
}

const char *play_error(void)
{
    return error.text;
}

int play_entries(void)
{
    return (int)ref_entries(&shape);
}

int play_selected(void)
{
    return (int)ref_selected(&shape);
}

void play_draw(uint32_t seed)
{
    static const int inputs[] = {0, 1, 2, 4};
    for (int i = 0; i < 4; i++)
        for (int64_t j = 0; j < shape.tokens * shape.dim; j++)
            layers[0].tokens[inputs[i]][j] = lh_random_gaussian(seed, (uint64_t)i, (uint64_t)j);
}

static void forward(const struct ref_trace *t, int broken, int keep)
{
    ref_layer_pool(&shape, t);
    ref_layer_score(&shape, t);
    if (!keep)
        ref_layer_select(&shape, t);
    ref_layer_gather(&shape, t);
    if (broken & PLAY_NO_MASK)
        broken_attend(&shape, t->q_sel, t->k_sel, t->v_sel, t->o_sel, t->lse, t->scratch.row);
    else
        ref_layer_attend(&shape, t);
    if (broken & PLAY_NO_SHIFT) {
        ref_slots(&shape, t->index, t->scratch.slot);
        broken_scatter(&shape, t->o_sel, t->scratch.slot, t->out, t->coverage);
    } else {
        ref_layer_scatter(&shape, t);
    }
}

/* As ref_attend_backward has them. */
static void find_weights(const struct ref_trace *t, int broken)
{
    const int64_t d = shape.dim, selected = ref_selected(&shape);
    const double scale = 1 / sqrt((double)d);
    for (int64_t i = 0; i < selected; i++) {
        for (int64_t j = 0; j < selected; j++) {
            double sum = 0;
            for (int64_t c = 0; c < d && (j <= i || broken & PLAY_NO_MASK); c++)
                sum += t->q_sel[i * d + c] * t->k_sel[j * d + c];
            weights[i * selected + j] =
                j <= i || broken & PLAY_NO_MASK ? ref_exp(sum * scale - t->lse[i]) : 0;
        }
    }
}

void play_run(int broken, int keep)
{
    const struct ref_trace t = bind(&layers[0]);
    forward(&t, broken, keep);
    find_weights(&t, broken);
    if (!broken)
        ref_backward(&shape, &t);
    for (int i = 0; i < play_selected(); i++)
        index32[i] = (int32_t)t.index[i];
}

int play_probe(int token, int broken, int keep)
{
    const struct ref_trace base = bind(&layers[0]), t = bind(&layers[1]);
    const size_t bytes = (size_t)(shape.tokens * shape.dim) * sizeof(double),
                 row = (size_t)shape.dim * sizeof(double);
    int leaks = 0;
    for (int i = 0; i < 3; i++) {
        memcpy(layers[1].tokens[i], layers[0].tokens[i], bytes);
        for (int64_t c = 0; c < shape.dim; c++)
            layers[1].tokens[i][token * shape.dim + c] += 1;
    }
    memcpy(layers[1].index, layers[0].index, (size_t)play_selected() * sizeof(int64_t));
    forward(&t, broken, keep);
    for (int64_t j = 0; j < shape.tokens; j++) {
        moved[j] = memcmp(base.out + j * shape.dim, t.out + j * shape.dim, row) != 0;
        leaks += moved[j] && j < token;
    }
    return leaks;
}

double *play_tensor(int id)
{
    const struct ref_trace t = bind(&layers[0]);
    double *const tensors[LH_TENSOR_COUNT] = {
        [LH_Q] = t.q,
        [LH_K] = t.k,
        [LH_V] = t.v,
        [LH_Q_PYR] = t.q_pyr,
        [LH_K_PYR] = t.k_pyr,
        [LH_V_PYR] = t.v_pyr,
        [LH_SCORE_Q] = t.score_q,
        [LH_SCORE_K] = t.score_k,
        [LH_Q_SEL] = t.q_sel,
        [LH_K_SEL] = t.k_sel,
        [LH_V_SEL] = t.v_sel,
        [LH_O_SEL] = t.o_sel,
        [LH_LSE] = t.lse,
        [LH_OUT] = t.out,
        [LH_DOUT] = t.dout,
        [LH_DO_SEL] = t.do_sel,
        [LH_DQ_SEL] = t.dq_sel,
        [LH_DK_SEL] = t.dk_sel,
        [LH_DV_SEL] = t.dv_sel,
        [LH_DQ] = t.dq,
        [LH_DK] = t.dk,
        [LH_DV] = t.dv,
    };
    return id >= 0 && id < LH_TENSOR_COUNT ? tensors[id] : NULL;
}

double *play_weights(void)
{
    return weights;
}

const int32_t *play_index(void)
{
    return index32;
}

const int32_t *play_coverage(void)
{
    return layers[0].coverage;
}

const int32_t *play_moved(void)
{
    return moved;
}

/* ---- the cases that two builds are compared on ---- */

static uint32_t next(uint32_t seed, uint64_t *counter, uint32_t below)
{
    uint32_t block[4];
    lh_random_block(seed, 99, (*counter)++, block);
    return block[0] % below;
}

static lh_config draw_configuration(uint32_t seed)
{
    lh_config c = {.batch = 1};
    uint64_t counter = 0;
    for (;;) { /* until it fits: most do */
        const uint32_t tiles = 1 + next(seed, &counter, 3);
        int64_t window = 1;
        c.levels = 1 + next(seed, &counter, 4);
        c.pool = 2 + next(seed, &counter, 3);
        c.tile_topk = 2 + 2 * (int64_t)next(seed, &counter, 3);
        c.topk = c.tile_topk * tiles;
        c.dim = 1 + next(seed, &counter, PLAY_DIM);
        c.heads = 1 + next(seed, &counter, HEADS);
        c.kv_heads = 1 + next(seed, &counter, (uint32_t)c.heads);
        for (int64_t l = 1; l < c.levels; l++)
            window *= c.pool;
        c.tokens = window * tiles * (c.tile_topk + next(seed, &counter, 6));
        if (configure(&c) == 0)
            return c;
    }
}

static double draw_value(uint32_t seed, uint32_t pattern, uint64_t stream, uint64_t i)
{
    const double x = lh_random_gaussian(seed, stream, i);
    switch (pattern) {
    case 0: /* ties */
        return (double)(int64_t)(2 * x);
    case 1: /* logits in the hundreds */
        return 16 * x;
    case 2: /* subnormal weights and below */
        return 0x1p-520 * x;
    default:
        return x;
    }
}

static uint64_t hash(uint64_t state, const void *bytes, size_t size)
{
    const unsigned char *at = bytes;
    for (size_t i = 0; i < size; i++)
        state = (state ^ at[i]) * UINT64_C(0x100000001B3);
    return state;
}

uint64_t play_case(uint32_t seed)
{
    const lh_config c = draw_configuration(seed);
    const struct ref_trace t = bind(&layers[0]);
    const uint32_t pattern = seed % 5;
    const int64_t q = c.heads * c.tokens * c.dim, kv = c.kv_heads * c.tokens * c.dim;
    const int64_t entries = ref_entries(&shape), selected = c.heads * ref_selected(&shape);
    double *const inputs[] = {t.q, t.k, t.v, t.dout};
    for (int i = 0; i < 4; i++)
        for (int64_t j = 0; j < (i == 1 || i == 2 ? kv : q); j++)
            inputs[i][j] = draw_value(seed, pattern, (uint64_t)i, (uint64_t)j);
    ref_forward(&shape, &t);
    ref_backward(&shape, &t);
    const struct {
        const void *data;
        int64_t elements;
        size_t size;
    } parts[] = {
        {t.q, q, 8},
        {t.k, kv, 8},
        {t.v, kv, 8},
        {t.q_pyr, c.heads * entries * c.dim, 8},
        {t.k_pyr, c.kv_heads * entries * c.dim, 8},
        {t.v_pyr, c.kv_heads * entries * c.dim, 8},
        {t.score_q, c.heads * entries, 8},
        {t.score_k, c.kv_heads * entries, 8},
        {t.index, selected, sizeof(int64_t)},
        {t.q_sel, selected * c.dim, 8},
        {t.k_sel, selected * c.dim, 8},
        {t.v_sel, selected * c.dim, 8},
        {t.o_sel, selected * c.dim, 8},
        {t.lse, selected, 8},
        {t.out, q, 8},
        {t.coverage, c.heads * c.tokens, sizeof(int32_t)},
        {t.dout, q, 8},
        {t.do_sel, selected * c.dim, 8},
        {t.dq_sel, selected * c.dim, 8},
        {t.dk_sel, selected * c.dim, 8},
        {t.dv_sel, selected * c.dim, 8},
        {t.dq, q, 8},
        {t.dk, kv, 8},
        {t.dv, kv, 8},
    };
    uint64_t state = UINT64_C(0xCBF29CE484222325);
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
        state = hash(state, parts[i].data, (size_t)parts[i].elements * parts[i].size);
    return state;
}
