/*
 * Cases worked out by hand: SPEC 3 and 4 on paper, no program involved.
 *
 * hand-ties     q = k = 0, so every score ties and every weight of row s is 1/(s+1).
 *   level 1 has entries 8..11 over tokens (0,1) (2,3) (4,5) (6,7); parents are the lowest two, 8 and 9.
 *   sub-sequence 0 1 8 2 3 9 10 11, values 1 2 1.5 3 4 3.5 5.5 7.5, so o_sel is their running mean
 *   1 3/2 3/2 15/8 23/10 5/2 41/14 7/2 and lse[s] = log(s+1).
 *   entry i of level 1 writes tokens 2i+1 and 2i+2: out[3] = o_sel of token 3 + o_sel of entry 9 = 2.3 + 2.5.
 *   with dout = 1, do_sel counts what an entry wrote: 1 1 2 1 1 2 2 1 (entry 11 is clipped at N), and
 *   dv_sel[c] is the sum over s >= c of do_sel[s]/(s+1): from the end 1/8, +2/7, +2/6, +1/5, ...
 * hand-look-ahead, hand-looked-ahead   the 6-token example: raising q[5] from 0.5 to 9 makes the last coarse
 *   entry a parent, the first becomes a leaf, and token 0 is left uncovered.
 * hand-three-levels   all ties, two tiles: both coarse entries of a tile are parents, of the four level-1 entries
 *   below them the lowest two.
 */
#include <string.h>

#include "verify/reference.h"

static const double ties_v[] = {1, 2, 3, 4, 5, 6, 7, 8};
static const int32_t ties_index[] = {0, 1, 8, 2, 3, 9, 10, 11};
static const int32_t ties_coverage[] = {1, 2, 2, 2, 1, 1, 1, 1};
static const double ties_o_sel[] = {1, 1.5, 1.5, 1.875, 2.3, 2.5, 41. / 14, 3.5};
static const double ties_out[] = {1, 3, 3.375, 4.8, 2.5, 41. / 14, 41. / 14, 3.5};
static const double ties_do_sel[] = {1, 1, 2, 1, 1, 2, 2, 1};
/* dv_sel = 941/280 661/280 521/280 1003/840 793/840 125/168 23/56 1/8 */
static const double ties_dv[] = {941. / 280 + 521. / 560,
                                 661. / 280 + 521. / 560,
                                 1003. / 840 + 125. / 336,
                                 793. / 840 + 125. / 336,
                                 23. / 112,
                                 23. / 112,
                                 1. / 16,
                                 1. / 16};
const struct verify_hand verify_hand_ties = {
    .v = ties_v,
    .want = {[LH_INDEX] = ties_index,
             [LH_COVERAGE] = ties_coverage,
             [LH_O_SEL] = ties_o_sel,
             [LH_OUT] = ties_out,
             [LH_DO_SEL] = ties_do_sel,
             [LH_DV] = ties_dv},
};

static const double ahead_q[] = {3, .5, 2, .5, 1, .5}, ahead_k[] = {1, .5, 2, .5, 1.5, .5};
static const double ahead_score_q[] = {3, .5, 2, .5, 1, .5, 3, 2, 1},
                    ahead_score_k[] = {1, .5, 2, .5, 1.5, .5, 1, 2, 1.5};
static const int32_t ahead_index[] = {0, 1, 6, 2, 3, 7, 8}, ahead_coverage[] = {1, 2, 2, 2, 1, 1};
static const double ahead_v_sel[] = {1, 2, 1.5, 3, 4, 3.5, 5.5};
const struct verify_hand verify_hand_ahead = {
    .q = ahead_q,
    .k = ahead_k,
    .v = ties_v,
    .want = {[LH_SCORE_Q] = ahead_score_q,
             [LH_SCORE_K] = ahead_score_k,
             [LH_INDEX] = ahead_index,
             [LH_V_SEL] = ahead_v_sel,
             [LH_COVERAGE] = ahead_coverage},
};

static const double moved_q[] = {3, .5, 2, .5, 1, 9};
static const int32_t moved_index[] = {6, 2, 3, 7, 4, 5, 8}, moved_coverage[] = {0, 1, 2, 2, 2, 2};
const struct verify_hand verify_hand_moved = {
    .q = moved_q,
    .k = ahead_k,
    .v = ties_v,
    .want = {[LH_INDEX] = moved_index, [LH_COVERAGE] = moved_coverage},
};

/* q = k = (1 1 1 1 9 9 5 5) times 2^-83, and the same apart: entries 8 9 10 11 over pairs of tokens score 1 1 9 5, so
 * 10 is the parent by query and 11 by key; 8 and 9 are leaves. Squares of neither fit binary32. */
#define ROWS(unit)                                                                                           \
    {                                                                                                        \
        1 * unit, 1 * unit, 1 * unit, 1 * unit, 9 * unit, 9 * unit, 5 * unit, 5 * unit                       \
    }
static const double tiny[] = ROWS(0x1p-83), large[] = ROWS(0x1p83);
static const int32_t strongest_index[] = {8, 9, 4, 5, 10, 6, 7, 11},
                     strongest_coverage[] = {0, 1, 1, 1, 2, 2, 2, 2};
const struct verify_hand verify_hand_tiny = {
    .q = tiny,
    .k = tiny,
    .v = ties_v,
    .want = {[LH_INDEX] = strongest_index, [LH_COVERAGE] = strongest_coverage},
};
const struct verify_hand verify_hand_apart = {
    .q = large,
    .k = tiny,
    .v = ties_v,
    .want = {[LH_INDEX] = strongest_index, [LH_COVERAGE] = strongest_coverage},
};

/* L = 1, d = 1, q = 2^15, k rising by 2^15: the logits of a row are 2^30 apart and the last is the largest, so every
 * weight is 0 or 1: o = v, lse = 2^30 (s+1), and no gradient reaches q or k. */
static const double huge_q[] = {0x1p15, 0x1p15, 0x1p15, 0x1p15, 0x1p15, 0x1p15, 0x1p15, 0x1p15};
static const double huge_k[] = {0x1p15, 0x1p16, 0x3p15, 0x1p17, 0x5p15, 0x3p16, 0x7p15, 0x1p18};
static const double huge_lse[] = {0x1p30, 0x1p31, 0x3p30, 0x1p32, 0x5p30, 0x3p31, 0x7p30, 0x1p33};
static const double zeros[8], ones[] = {1, 1, 1, 1, 1, 1, 1, 1};
const struct verify_hand verify_hand_huge = {
    .q = huge_q,
    .k = huge_k,
    .v = ties_v,
    .want = {[LH_O_SEL] = ties_v,
             [LH_LSE] = huge_lse,
             [LH_OUT] = ties_v,
             [LH_DQ] = zeros,
             [LH_DK] = zeros,
             [LH_DV] = ones},
};

/* One token: its weight is 1 whatever its logit, 9 2^30. */
static const double token_q[] = {0x3p15}, token_lse[] = {0x9p30};
const struct verify_hand verify_hand_token = {
    .q = token_q,
    .k = token_q,
    .v = ones,
    .want = {[LH_O_SEL] = ones,
             [LH_LSE] = token_lse,
             [LH_OUT] = ones,
             [LH_DQ] = zeros,
             [LH_DK] = zeros,
             [LH_DV] = ones},
};

static const double levels_v[] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16};
static const int32_t levels_index[] = {0, 1, 16, 2,  3,  17, 24, 18, 19, 25,
                                       8, 9, 20, 10, 11, 21, 26, 22, 23, 27};
static const double levels_v_sel[] = {1, 2,  1.5, 3,  4,  3.5,  2.5,  5.5,  7.5,  6.5,
                                      9, 10, 9.5, 11, 12, 11.5, 10.5, 13.5, 15.5, 14.5};
/* Token 3 is selected and is written by entries 17 (3..4) and 24 (3..6). */
static const int32_t levels_coverage[] = {1, 2, 2, 3, 2, 2, 2, 2, 3, 3, 3, 3, 2, 2, 2, 2};
const struct verify_hand verify_hand_levels = {
    .v = levels_v,
    .want = {[LH_INDEX] = levels_index, [LH_V_SEL] = levels_v_sel, [LH_COVERAGE] = levels_coverage},
};

void verify_reference_hand(const struct verify_reference *reference)
{
    const struct verify_hand *hand = reference->subject->hand;
    for (int id = 0; id < LH_TENSOR_COUNT; id++) {
        lh_tensor wanted = reference->trace->want.tensor[id];
        if (!hand->want[id])
            continue;
        wanted.data = (void *)(uintptr_t)hand->want[id];
        verify_reference_row(reference, "by hand", (lh_tensor_id)id,
                             verify_compare(&reference->trace->want.tensor[id], &wanted,
                                            id == LH_INDEX || id == LH_COVERAGE ? 0 : 4e-15),
                             "");
    }
}
