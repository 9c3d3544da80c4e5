/*
 * 01: the 12-token example of docs/algorithm.md through ref/ alone, every number of it.
 *
 *   cc examples/01_reference.c ref/[a-z]*.c -lm -o reference && ./reference
 */
#include <stdio.h>

#include "../ref/ref.h"

enum {
    N = 12,
    P = 12 + 6 + 3,
    S = 3 + 2 * 2 * 2
};

static void print(const char *name, const real *x, int n)
{
    printf("%-8s", name);
    for (int i = 0; i < n; i++)
        printf(" %8.4f", (double)x[i]);
    printf("\n");
}

int main(void)
{
    const struct ref_shape shape = {.batch = 1,
                                    .heads = 1,
                                    .kv_heads = 1,
                                    .tokens = N,
                                    .dim = 1,
                                    .levels = 3,
                                    .pool = 2,
                                    .topk = 2,
                                    .tile_topk = 2};
    real q[N] = {1, 1, -1, -1, 2, 0, 1, 1, 1, -1, 3, 1}, k[N] = {1, -1, 1, -1, 0, -2, 3, -1, 1, 1, 2, 0};
    real v[N] = {4, 0, 0, 4, 8, 0, 2, 6, 4, 4, 1, 3}, dout[N] = {1, 2, -1, 0, 3, 1, -2, 2, 0, 1, 2, -1};
    real q_pyr[P], k_pyr[P], v_pyr[P], score_q[P], score_k[P], q_sel[S], k_sel[S], v_sel[S], o_sel[S], lse[S],
        out[N];
    real do_sel[S], dq_sel[S], dk_sel[S], dv_sel[S], dq[N], dk[N], dv[N], row[S], head[N];
    int64_t index[S], slot[P];
    int32_t coverage[N];
    struct ref_candidate candidates[S];
    const struct ref_trace trace = {q,        k,       v,       q_pyr,  k_pyr,
                                    v_pyr,    score_q, score_k, index,  q_sel,
                                    k_sel,    v_sel,   o_sel,   lse,    out,
                                    coverage, dout,    do_sel,  dq_sel, dk_sel,
                                    dv_sel,   dq,      dk,      dv,     {candidates, slot, row, head}};
    for (int i = 0; i < N; i++)
        q[i] *= ref_log(2); /* every exponential is then a power of two */
    ref_forward(&shape, &trace);
    ref_backward(&shape, &trace);
    for (int s = 0; s < S; s++)
        printf(s == 0 ? "index    %8d" : " %8d", (int)index[s]);
    puts("");
    print("o_sel", o_sel, S), print("lse", lse, S), print("out", out, N);
    print("dq", dq, N), print("dk", dk, N), print("dv", dv, N);
    return 0;
}
