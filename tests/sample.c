#include "sample.h"

#include <stdio.h>
#include <stdlib.h>

static void *take(int64_t elements, size_t size)
{
    void *memory = calloc((size_t)elements, size);
    if (!memory) {
        fprintf(stderr, "sample: memory for %lld elements could not be had\n", (long long)elements);
        exit(2);
    }
    return memory;
}

struct sample sample_new(const struct ref_shape *s)
{
    const int64_t bh = s->batch * s->heads, bg = s->batch * s->kv_heads, d = s->dim;
    const int64_t n = s->tokens, entries = ref_entries(s), selected = ref_selected(s);
    struct sample sample = {.shape = *s};
    struct ref_trace *t = &sample.trace;
    const struct {
        const char *name;
        real **at;
        int64_t elements;
    } tensors[SAMPLE_TENSORS] = {
        {"q", &t->q, bh * n * d},
        {"k", &t->k, bg * n * d},
        {"v", &t->v, bg * n * d},
        {"dout", &t->dout, bh * n * d},
        {"q_pyr", &t->q_pyr, bh * entries * d},
        {"k_pyr", &t->k_pyr, bg * entries * d},
        {"v_pyr", &t->v_pyr, bg * entries * d},
        {"score_q", &t->score_q, bh * entries},
        {"score_k", &t->score_k, bg * entries},
        {"q_sel", &t->q_sel, bh * selected * d},
        {"k_sel", &t->k_sel, bh * selected * d},
        {"v_sel", &t->v_sel, bh * selected * d},
        {"o_sel", &t->o_sel, bh * selected * d},
        {"lse", &t->lse, bh * selected},
        {"out", &t->out, bh * n * d},
        {"do_sel", &t->do_sel, bh * selected * d},
        {"dq_sel", &t->dq_sel, bh * selected * d},
        {"dk_sel", &t->dk_sel, bh * selected * d},
        {"dv_sel", &t->dv_sel, bh * selected * d},
        {"dq", &t->dq, bh * n * d},
        {"dk", &t->dk, bg * n * d},
        {"dv", &t->dv, bg * n * d},
    };
    for (int i = 0; i < SAMPLE_TENSORS; i++) {
        *tensors[i].at = take(tensors[i].elements, sizeof(real));
        sample.tensor[i].name = tensors[i].name;
        sample.tensor[i].values = *tensors[i].at;
        sample.tensor[i].elements = tensors[i].elements;
    }
    t->index = take(bh * selected, sizeof *t->index);
    t->coverage = take(bh * n, sizeof *t->coverage);
    t->scratch.candidates = take(selected, sizeof *t->scratch.candidates);
    t->scratch.slot = take(entries, sizeof *t->scratch.slot);
    t->scratch.row = take(selected, sizeof *t->scratch.row);
    t->scratch.head = take(n * d, sizeof *t->scratch.head);
    return sample;
}

void sample_free(struct sample *sample)
{
    const struct ref_trace *t = &sample->trace;
    void *rest[] = {t->index,        t->coverage,    t->scratch.candidates,
                    t->scratch.slot, t->scratch.row, t->scratch.head};
    for (int i = 0; i < SAMPLE_TENSORS; i++)
        free(sample->tensor[i].values);
    for (size_t i = 0; i < sizeof rest / sizeof *rest; i++)
        free(rest[i]);
}

int64_t sample_draw(uint64_t *state)
{
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return (int64_t)(*state >> 44);
}

static real draw(enum fill fill, uint64_t *state)
{
    if (fill == TIES)
        return (real)(sample_draw(state) % 3 - 1);
    int64_t sum = -2 * 1048576;
    for (int i = 0; i < 4; i++)
        sum += sample_draw(state);
    return (real)sum * (real)(0x1p-19 * (fill == SHARP ? 0x1p5 : fill == TINY ? 0x1p-100 : 1));
}

void sample_fill(struct sample *sample, enum fill fill, uint64_t *state)
{
    for (int i = 0; i < SAMPLE_INPUTS; i++)
        for (int64_t j = 0; j < sample->tensor[i].elements; j++)
            sample->tensor[i].values[j] = draw(fill, state);
}
