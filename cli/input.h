/* input.h: one layer as a file gives it: configuration from __metadata__ and shapes, tensors in a plan's
 * dtype. */
#ifndef LH_CLI_INPUT_H
#define LH_CLI_INPUT_H

#include "core/base.h"
#include "core/safetensors.h"

/* What flags ask for; 0 where a flag was not given. */
typedef struct cli_wish {
    int64_t levels, pool, topk, tile_topk, kv_heads;
    bool dense;       /* levels 1 */
    bool without_v;   /* v may be absent */
    bool token_major; /* q k v dout lie as [B,N,H,d] */
    bool may_turn;    /* shapes that only fit as [B,N,H,d] are refused with a word on --layout */
} cli_wish;

/* The configuration of a file's q k v (and dout when present): B H N d from q, G from k, the rest from
 * __metadata__ unless wished otherwise. Shapes that disagree are refused by name. */
lh_status cli_input_config(const lh_file *file, const cli_wish *wish, lh_config *config, lh_error *error);

/* The file's tensor `id` as a plan of `dtype` wants it: the file's own data where it fits, else a converted
 * copy in *copy (lh_free). NaN and Inf are refused by name and position. */
lh_status cli_input_tensor(const lh_file *file, lh_tensor_id id, lh_dtype dtype, lh_tensor *tensor,
                           void **copy, lh_error *error);

/* The checked `index` of a file, in the layout's index dtype; *copy as above. */
lh_status cli_input_index(const lh_file *file, const lh_config *config, lh_tensor *tensor, void **copy,
                          lh_error *error);

#endif
