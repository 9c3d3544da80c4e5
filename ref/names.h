/*
 * names.h: the same source in three widths in one program.
 *
 * Plain names are the binary64 build's; the other two builds (REF_BITS of real.h) rename theirs: ref_pool is ref32_pool
 * in the twin and ref113_pool in the widest. Nothing here matters to a reader of the mathematics.
 */
#ifndef REF_NAMES_H
#define REF_NAMES_H

#if REF_BITS == 32
#define REF_NAME(name) ref32_##name
#elif REF_BITS == 113
#define REF_NAME(name) ref113_##name
#endif
#if REF_BITS != 64
#define ref_pool REF_NAME(pool)
#define ref_unpool REF_NAME(unpool)
#define ref_score REF_NAME(score)
#define ref_select REF_NAME(select)
#define ref_gather REF_NAME(gather)
#define ref_slots REF_NAME(slots)
#define ref_attend REF_NAME(attend)
#define ref_attend_backward REF_NAME(attend_backward)
#define ref_scatter REF_NAME(scatter)
#define ref_scatter_backward REF_NAME(scatter_backward)
#define ref_exp REF_NAME(exp)
#define ref_log REF_NAME(log)
#define ref_layer_pool REF_NAME(layer_pool)
#define ref_layer_score REF_NAME(layer_score)
#define ref_layer_select REF_NAME(layer_select)
#define ref_layer_gather REF_NAME(layer_gather)
#define ref_layer_attend REF_NAME(layer_attend)
#define ref_layer_scatter REF_NAME(layer_scatter)
#define ref_layer_scatter_backward REF_NAME(layer_scatter_backward)
#define ref_layer_attend_backward REF_NAME(layer_attend_backward)
#define ref_layer_unpool REF_NAME(layer_unpool)
#define ref_forward REF_NAME(forward)
#define ref_backward REF_NAME(backward)
#endif

#endif
